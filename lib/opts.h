/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_OPTS_H
#define HGM_LIB_OPTS_H

#include <stddef.h>

/*
 * The size of a struct in the first release that had it, by the field that was the last one then.
 * sizeof would grow with the struct, and refuse the callers of older releases.
 */
#define HGM_FIRST_SIZE(type, last)                                                 \
	((offsetof(type, last) + sizeof(((type *)0)->last) + _Alignof(type) - 1) / \
	 _Alignof(type) * _Alignof(type))

/*
 * The one checker of sized option structs. Copies the caller's struct @user (NULL: all defaults)
 * into @own, a struct of @own_size bytes, zeroing what the caller's is too short for. @min_size is
 * HGM_FIRST_SIZE().
 *
 * -EINVAL: no size that any release ever had; -E2BIG: bytes set that this release does not know.
 */
int hgm_opts_in(void *own, size_t own_size, size_t min_size, const void *user,
		const char *function);

/* The other way: fill the caller's sized struct @user from @own, which keeps the caller's size. */
int hgm_opts_out(void *user, const void *own, size_t own_size, size_t min_size,
		 const char *function);

#endif
