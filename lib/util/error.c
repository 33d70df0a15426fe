/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors in words, one buffer per thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <hgm/error.h>

#include "error.h"

/* The longest text: opening a userfaultfd names three ways, with a remedy for each. */
static _Thread_local char text[1024];

const char *hgm_errmsg(void)
{
	return text;
}

int hgm_set_errmsg(int code, const char *from)
{
	size_t length;

	if (!from)
		return hgm_fail(-EINVAL, "hgm_set_errmsg: text is NULL");
	length = strnlen(from, sizeof(text) - 1);
	memmove(text, from, length); /* it may be this very text */
	text[length] = 0;
	return code;
}

int hgm_fail(int rc, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return rc;
}

const char *hgm_errno_name(int rc)
{
	const char *name = strerrorname_np(rc < 0 ? -rc : rc);

	return name ? name : "unknown error";
}
