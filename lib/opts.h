/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_OPTS_H
#define HGM_LIB_OPTS_H

#include <stddef.h>

/*
 * The one checker of sized option structs. Copies the caller's struct @user (NULL: all defaults)
 * into @own, a struct of @own_size bytes, zeroing what the caller's is too short for. @min_size is
 * the struct's size in the first release that had it.
 *
 * -EINVAL: no size that any release ever had; -E2BIG: bytes set that this release does not know.
 */
int hgm_opts_in(void *own, size_t own_size, size_t min_size, const void *user,
		const char *function);

/* The other way: fill the caller's sized struct @user from @own, which keeps the caller's size. */
int hgm_opts_out(void *user, const void *own, size_t own_size, size_t min_size,
		 const char *function);

#endif
