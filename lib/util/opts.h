/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Structs that begin with their size, and other checks of arguments.
 */
#ifndef HGM_LIB_OPTS_H
#define HGM_LIB_OPTS_H

#include <stddef.h>
#include <stdint.h>

/*
 * The size of a struct in the first release that had it, computed from the field that was the last
 * one then. sizeof would grow with the struct, and refuse callers built for older releases.
 */
#define HGM_FIRST_SIZE(type, last)                                                 \
	((offsetof(type, last) + sizeof(((type *)0)->last) + _Alignof(type) - 1) / \
	 _Alignof(type) * _Alignof(type))

/*
 * Check a sized option struct. Copies the caller's struct @user (NULL: all defaults) into @own, a
 * struct of @own_size bytes, and zeroes the part of @own for which the caller's struct is too
 * short. @min_size is HGM_FIRST_SIZE().
 *
 * Errors: -EINVAL if no release ever had this size; -E2BIG if bytes are set that this release does
 * not know.
 */
int hgm_opts_in(void *own, size_t own_size, size_t min_size, const void *user,
		const char *function);

/* The reverse: fill the caller's sized struct @user from @own. The caller's size is kept. */
int hgm_opts_out(void *user, const void *own, size_t own_size, size_t min_size,
		 const char *function);

/* May a bitmap describe these pages, of @all pages? -errno with text. */
int hgm_opts_pages(uint64_t all, uint64_t first, uint64_t pages, const char *function);

#endif
