/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of what is served: they need a userfaultfd for faults of the kernel, too, which not
 * everybody may have.
 */
#ifndef HGM_TEST_USERFAULTFD_H
#define HGM_TEST_USERFAULTFD_H

#include <errno.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#include "test.h"

/* Why it cannot be had, or NULL. */
static inline const char *lacking_userfaultfd(void)
{
	struct hgm_uffd *u;
	int rc = hgm_uffd_open(&u, NULL);

	if (!rc)
		hgm_uffd_close(u);
	return rc == -EPERM || rc == -EACCES || rc == -ENOSYS ? hgm_errmsg() : NULL;
}

#undef TEST_MAIN
#define TEST_MAIN(tests) TEST_MAIN_UNLESS(tests, NULL, lacking_userfaultfd())

#endif
