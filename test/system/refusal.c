/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "refusal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/sys.h"
#include "map/map.h"

const char *const refusal_names[] = {
	[REFUSE_MEMORY] = "memory",   [REFUSE_THREAD] = "thread",
	[REFUSE_MAPPING] = "mapping", [REFUSE_DESCRIPTOR] = "descriptor",
	[REFUSE_LEAF] = "leaf",
};

const int refusal_errors[] = {
	[REFUSE_MEMORY] = -ENOMEM,     [REFUSE_THREAD] = -EAGAIN, [REFUSE_MAPPING] = -ENOMEM,
	[REFUSE_DESCRIPTOR] = -EMFILE, [REFUSE_LEAF] = -ENOMEM,
};

static _Atomic int armed = -1;
static _Atomic int left; /* calls before it; negative: it has been made */
static _Atomic long pieces;
static _Atomic int64_t mapped; /* bytes */

static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static bool refused(enum refusal what)
{
	return atomic_load(&armed) == (int)what && !atomic_fetch_sub(&left, 1);
}

void refusal_arm(enum refusal what, unsigned int nth)
{
	atomic_store(&left, (int)nth);
	atomic_store(&armed, (int)what);
}

bool refusal_disarm(void)
{
	atomic_store(&armed, -1);
	return atomic_load(&left) < 0;
}

long refusal_pieces(void)
{
	return atomic_load(&pieces);
}

int64_t refusal_mapped(void)
{
	return atomic_load(&mapped);
}

/* What the linker puts in the place of these functions (--wrap). */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
void __real_free(void *piece);
void __wrap_free(void *piece);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

int __real_hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine);
int __wrap_hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine);

static void *counted(void *piece)
{
	if (piece)
		atomic_fetch_add(&pieces, 1);
	return piece;
}

void *__wrap_malloc(size_t size)
{
	return refused(REFUSE_MEMORY) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refused(REFUSE_MEMORY) ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t size)
{
	if (refused(REFUSE_MEMORY))
		return NULL;
	return old ? __real_realloc(old, size) : counted(__real_realloc(old, size));
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return refused(REFUSE_MEMORY) ? NULL : counted(__real_aligned_alloc(align, size));
}

char *__wrap_strdup(const char *text)
{
	return refused(REFUSE_MEMORY) ? NULL : counted(__real_strdup(text));
}

void __wrap_free(void *piece)
{
	if (piece)
		atomic_fetch_sub(&pieces, 1);
	__real_free(piece);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	return refused(REFUSE_THREAD) ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

int __wrap_hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine)
{
	*mine = 0;
	return refused(REFUSE_LEAF) ? -ENOMEM : __real_hgm_map_claim(map, word, want, mine);
}

static uint64_t in_pages(uint64_t len)
{
	return (len + 4095) / 4096 * 4096;
}

static int odd_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		    uint64_t offset)
{
	int rc = refused(REFUSE_MAPPING) ? -ENOMEM
					 : kernel->mmap(out, addr, len, prot, flags, fd, offset);

	if (!rc && !(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)))
		atomic_fetch_add(&mapped, (int64_t)in_pages(len));
	return rc;
}

static int odd_munmap(void *addr, uint64_t len)
{
	int rc = kernel->munmap(addr, len);

	if (!rc)
		atomic_fetch_sub(&mapped, (int64_t)in_pages(len));
	return rc;
}

static int odd_open(const char *path, int flags)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->open(path, flags);
}

static int odd_dup(int fd)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->dup(fd);
}

static int odd_pidfd_open(int pid)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->pidfd_open(pid);
}

static int odd_memfd_create(const char *name, unsigned int flags)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->memfd_create(name, flags);
}

static int odd_eventfd(void)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->eventfd();
}

static int odd_userfaultfd(int flags)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->userfaultfd(flags);
}

static int odd_uffd_new(int dev, int flags)
{
	return refused(REFUSE_DESCRIPTOR) ? -EMFILE : kernel->uffd_new(dev, flags);
}

void refusal_begin(void)
{
	if (hgm_sys == &sys)
		return;
	kernel = hgm_sys;
	sys = *kernel;
	sys.mmap = odd_mmap;
	sys.munmap = odd_munmap;
	sys.open = odd_open;
	sys.dup = odd_dup;
	sys.pidfd_open = odd_pidfd_open;
	sys.memfd_create = odd_memfd_create;
	sys.eventfd = odd_eventfd;
	sys.userfaultfd = odd_userfaultfd;
	sys.uffd_new = odd_uffd_new;
	hgm_sys = &sys;
}
