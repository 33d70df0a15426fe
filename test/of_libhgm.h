/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For what is preloaded into programs to spoil what libhgm does for them, and nothing else.
 */
#ifndef HGM_TEST_OF_LIBHGM_H
#define HGM_TEST_OF_LIBHGM_H

#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>

/* Is this one of the library's threads? */
static inline bool is_of_libhgm(void)
{
	char name[16] = "";

	prctl(PR_GET_NAME, name);
	return !strncmp(name, "hgm-", 4);
}

#endif
