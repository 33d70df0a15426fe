/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors and events in words.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <hgm/error.h>

#include "nbd.h"

#define SAME_AGAIN_NS (1000 * NS_IN_MS)

uint64_t hgm_nbd_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

int hgm_nbd_fail(int rc, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return hgm_set_errmsg(rc, text);
}

/* What is said again and again is said once per second. */
void hgm_nbd_log(struct source_nbd *n, enum hgm_log_level level, const char *format, ...)
{
	uint64_t now = hgm_nbd_now_ns();
	char text[sizeof(n->said)];
	va_list ap;

	if (!n->opts.log)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!strcmp(text, n->said) && now - n->said_ns < SAME_AGAIN_NS)
		return;
	strcpy(n->said, text);
	n->said_ns = now;
	n->opts.log(n->opts.log_user, level, text);
}

/* libnbd leaves some errors of the protocol without a number. */
int hgm_nbd_error(void)
{
	int error = nbd_get_errno();

	return error ? -error : -EPROTO;
}
