/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "failing.h"

#include <errno.h>

#include "kernel/sys.h"

const char *const failing_names[] = {
	[FAILING_WRITEPROTECT] = "UFFDIO_WRITEPROTECT",	    [FAILING_REGISTER] = "UFFDIO_REGISTER",
	[FAILING_UNREGISTER] = "UFFDIO_UNREGISTER",	    [FAILING_TAKE_WRITTEN] = "PAGEMAP_SCAN",
	[FAILING_TAKE_WRITTEN_LATE] = "PAGEMAP_SCAN, late", [FAILING_API] = "UFFDIO_API",
};

static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static struct {
	_Atomic int verb; /* -1: none */
	_Atomic int left; /* calls before it; negative: it has been made */
	_Atomic int error;
} failing;

static int fails(enum failing_verb verb)
{
	if (atomic_load(&failing.verb) != (int)verb)
		return 0;
	return atomic_fetch_sub(&failing.left, 1) ? 0 : failing.error;
}

static int odd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	int rc = fails(FAILING_WRITEPROTECT);

	return rc ? rc : kernel->uffd_writeprotect(fd, addr, len, mode);
}

static int odd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	int rc = fails(FAILING_REGISTER);

	return rc ? rc : kernel->uffd_register(fd, addr, len, modes, ioctls);
}

static int odd_unregister(int fd, void *addr, uint64_t len)
{
	int rc = fails(FAILING_UNREGISTER);

	return rc ? rc : kernel->uffd_unregister(fd, addr, len);
}

static int odd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	int rc = fails(FAILING_API);

	return rc ? rc : kernel->uffd_api(fd, features, ioctls);
}

static int odd_take_written(int fd, const void *start, const void *end, struct hgm_pm_region *out,
			    uint64_t out_len, uint64_t *walk_end)
{
	int rc = fails(FAILING_TAKE_WRITTEN);

	if (rc)
		return rc;
	rc = fails(FAILING_TAKE_WRITTEN_LATE);
	/* Like the kernel, reports in the array what was found and protected again. */
	if (rc)
		kernel->pagemap_take_written(fd, start, end, out, out_len, walk_end);
	return rc ? rc : kernel->pagemap_take_written(fd, start, end, out, out_len, walk_end);
}

void failing_begin(void)
{
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_writeprotect = odd_writeprotect;
	sys.uffd_register = odd_register;
	sys.uffd_unregister = odd_unregister;
	sys.uffd_api = odd_api;
	sys.pagemap_take_written = odd_take_written;
	atomic_store(&failing.verb, -1);
	hgm_sys = &sys;
}

void failing_end(void)
{
	hgm_sys = kernel;
}

void failing_arm(enum failing_verb verb, unsigned int nth, int error)
{
	failing.error = error;
	atomic_store(&failing.left, (int)nth);
	atomic_store(&failing.verb, (int)verb);
}

bool failing_disarm(void)
{
	atomic_store(&failing.verb, -1);
	return atomic_load(&failing.left) < 0;
}
