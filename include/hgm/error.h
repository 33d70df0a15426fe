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

HGM_END_DECLS

#endif /* HGM_ERROR_H */
