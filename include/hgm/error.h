/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/error.h - what went wrong, in words
 */
#ifndef HGM_ERROR_H
#define HGM_ERROR_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

/**
 * hgm_errmsg - the text of this thread's last failed libhgm call
 *
 * One sentence or more: what failed, on what, and what would help. For people and logs only;
 * programs decide by the returned errno.
 *
 * Return: a NUL-terminated string that belongs to the calling thread and stays valid until this
 * thread's next failing libhgm call or its end; "" if none has failed yet. Never fails.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const char *hgm_errmsg(void);

HGM_END_DECLS

#endif /* HGM_ERROR_H */
