/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layer between the library and the kernel. The address of a region that has ended is not
 * reused while touchers may still use it. Otherwise they would write to the memory of others, which
 * a guest cannot do. In some lives the kernel also refuses temporarily, as it does while the
 * address space changes.
 */
#include "chaos.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/sys.h"

static const struct hgm_sys *kernel;
static struct hgm_sys sys;
static _Atomic uint64_t random_state;

static bool overlaps(const struct arena *a, const char *addr, uint64_t len)
{
	const char *own = atomic_load(&a->addr);

	return atomic_load(&a->state) == ARENA_ENDS && own && addr < own + a->pages * PAGE &&
	       own < addr + len;
}

/*
 * By a plain system call: ThreadSanitizer takes mmap() for a write to memory that touchers still
 * try to use.
 */
static int keep_address(void *addr, uint64_t len)
{
	for (unsigned int i = 0; i < ARENAS; i++)
		if (overlaps(&life.arena[i], addr, len))
			return syscall(SYS_mmap, addr, len, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				       0) == -1
				       ? -errno
				       : 0;
	return kernel->munmap(addr, len);
}

void seam_release(struct arena *a, const struct ram *had)
{
	uint64_t block = backing_block(a->backing), len = a->pages * PAGE;

	if (had->around_length)
		kernel->munmap(had->around, had->around_length);
	else /* Prepared shmem is rounded up to whole blocks. */
		kernel->munmap(atomic_load(&a->addr), a->backing == BACKING_SHMEM
							      ? (len + block - 1) / block * block
							      : len);
	atomic_store(&a->addr, NULL);
}

static bool refuses(int64_t *done)
{
	if (!life.again_one_in || random_of(&random_state) % life.again_one_in)
		return false;
	atomic_fetch_add(&tally.refused, 1);
	*done = -EAGAIN;
	return true;
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return refuses(done) ? -EAGAIN : kernel->uffd_continue(fd, addr, len, mode, done);
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	return refuses(done) ? -EAGAIN : kernel->uffd_copy(fd, dst, src, len, mode, done);
}

static int odd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return refuses(done) ? -EAGAIN : kernel->uffd_zeropage(fd, addr, len, mode, done);
}

static int odd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return refuses(done) ? -EAGAIN : kernel->uffd_poison(fd, addr, len, mode, done);
}

void seam_begin(void)
{
	kernel = hgm_sys;
	sys = *kernel;
	sys.munmap = keep_address;
	sys.uffd_continue = odd_continue;
	sys.uffd_copy = odd_copy;
	sys.uffd_zeropage = odd_zeropage;
	sys.uffd_poison = odd_poison;
	hgm_sys = &sys;
}
