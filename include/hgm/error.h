/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/error.h - what went wrong, as text
 */
#ifndef HGM_ERROR_H
#define HGM_ERROR_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

/**
 * hgm_errmsg - the text of this thread's last libhgm call that failed
 *
 * The text has one sentence or more: what failed, on which object, and what would help. It is for
 * people and logs only; a program must use the errno value that the call returned.
 *
 * Return: a NUL-terminated string. It belongs to the calling thread, and stays valid until the next
 * libhgm call of this thread that fails, or until the thread ends. It is "" if no call of this
 * thread has failed yet. Never fails.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const char *hgm_errmsg(void);

/**
 * hgm_set_errmsg - set the text that hgm_errmsg() returns on this thread
 * @code: the result, so that a function can end with `return hgm_set_errmsg(-EIO, text)`
 * @text: copied, at most 1023 bytes of it; it may be the result of hgm_errmsg()
 *
 * For libraries that are built on libhgm, such as sources, and report errors as it does.
 *
 * Return: -EINVAL @text is NULL; others as @code.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_set_errmsg(int code, const char *text);

HGM_END_DECLS

#endif /* HGM_ERROR_H */
