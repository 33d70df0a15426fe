/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "collapsing.h"

#include "kernel/sys.h"

#include <errno.h>

#define BLOCK_SHIFT 21

static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static struct {
	_Atomic(const char *) addr; /* NULL: nothing is watched */
	_Atomic uint64_t length;
	_Atomic uint64_t refused; /* bitmap of blocks */
	_Atomic int rc;
	_Atomic unsigned int one_in;
	_Atomic bool needs_a_page;
	_Atomic unsigned int us;
	_Atomic uint64_t random;
	_Atomic uint64_t continued[COLLAPSING_BLOCKS];
} watched;

/* The offset in the watched memory. UINT64_MAX: not inside. */
static uint64_t offset_of(const void *at)
{
	const char *addr = atomic_load(&watched.addr);
	uint64_t offset = (uintptr_t)at - (uintptr_t)addr;

	return addr && offset < atomic_load(&watched.length) ? offset : UINT64_MAX;
}

static bool nothing_is_mapped(void)
{
	for (unsigned int i = 0; i < COLLAPSING_BLOCKS; i++)
		if (atomic_load(&watched.continued[i]))
			return false;
	return true;
}

static int odd_madvise(void *addr, uint64_t len, int advice)
{
	uint64_t offset = advice == HGM_MADV_COLLAPSE ? offset_of(addr) : UINT64_MAX;

	if (offset != UINT64_MAX && atomic_load(&watched.us))
		nap_us(atomic_load(&watched.us));
	if (offset != UINT64_MAX &&
	    atomic_load(&watched.refused) >> (offset >> BLOCK_SHIFT) &
		    ((UINT64_C(1) << (len >> BLOCK_SHIFT)) - 1) &&
	    random_of(&watched.random) % atomic_load(&watched.one_in) == 0)
		return atomic_load(&watched.rc);
	if (offset != UINT64_MAX && atomic_load(&watched.needs_a_page) && nothing_is_mapped())
		return -EINVAL;
	return kernel->madvise(addr, len, advice);
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc = kernel->uffd_continue(fd, addr, len, mode, done);
	uint64_t offset = offset_of(addr);

	for (int64_t at = 0; offset != UINT64_MAX && at < *done; at += PAGE)
		atomic_fetch_add(&watched.continued[(offset + (uint64_t)at) >> BLOCK_SHIFT], 1);
	return rc;
}

int collapsing_set_up(void **state)
{
	(void)state;
	watch("fill whose blocks are mapped by their collapse", 100);
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.madvise = odd_madvise;
	sys.uffd_continue = odd_continue;
	hgm_sys = &sys;
	return 0;
}

int collapsing_tear_down(void **state)
{
	(void)state;
	atomic_store(&watched.addr, NULL);
	calm();
	return 0;
}

void collapsing_watch(const struct ram *ram)
{
	assert_true(ram->length <= (uint64_t)COLLAPSING_BLOCKS << BLOCK_SHIFT);
	atomic_store(&watched.addr, NULL);
	collapsing_refuse(0, 0, 1);
	atomic_store(&watched.needs_a_page, false);
	atomic_store(&watched.us, 0);
	for (unsigned int i = 0; i < COLLAPSING_BLOCKS; i++)
		atomic_store(&watched.continued[i], 0);
	atomic_store(&watched.length, ram->length);
	atomic_store(&watched.addr, ram->addr);
}

void collapsing_refuse(uint64_t blocks, int rc, unsigned int one_in)
{
	atomic_store(&watched.rc, rc);
	atomic_store(&watched.one_in, one_in);
	atomic_store(&watched.refused, blocks);
}

void collapsing_take_us(unsigned int us)
{
	atomic_store(&watched.us, us);
}

void collapsing_needs_a_page(void)
{
	atomic_store(&watched.needs_a_page, true);
}

uint64_t collapsing_continued(uint64_t block)
{
	return atomic_load(&watched.continued[block]);
}
