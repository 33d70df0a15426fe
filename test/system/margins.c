/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "margins.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "region/hgm.h"

#define CANARY 0xc7
#define FENCES 8

static uint64_t block_end(uint64_t at)
{
	return (at + 2 * MIB - 1) / (2 * MIB) * 2 * MIB;
}

static void *map_at(void *at, uint64_t length, int flags, int fd, uint64_t offset)
{
	void *out;

	assert_ok(hgm_sys->mmap(&out, at, length, PROT_READ | PROT_WRITE, flags, fd, offset));
	return out;
}

/* Anonymous memory of whole blocks, with one block to spare for the alignment. */
static char *map_around(struct ram *ram, uint64_t length)
{
	ram->around_length = block_end(length) + 2 * MIB;
	ram->around = map_at(NULL, ram->around_length, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(ram->around, CANARY, ram->around_length);
	return (char *)block_end((uintptr_t)ram->around);
}

static int make_file(const struct margins *m, uint64_t length)
{
	uint64_t size = m->file_head + length + m->tail;
	int fd = hgm_sys->memfd_create("theirs", 0);
	char *at;

	assert_true(fd >= 0);
	assert_ok(hgm_sys->ftruncate(fd, size));
	at = map_at(NULL, size, MAP_SHARED, fd, 0);
	memset(at, CANARY, size);
	hgm_sys->munmap(at, size);
	return fd;
}

/*
 * A file that fits is mapped as a whole, so that the margins and the region are one memory area.
 * Another one is mapped over a part of a reservation.
 */
static char *map_caller(struct ram *ram, const struct margins *m, uint64_t length)
{
	char *at = map_around(ram, m->head + length + m->tail);
	bool fits = m->head == m->file_head;

	if (ram->fd >= 0 && fits)
		map_at(at, m->head + length + m->tail, MAP_SHARED | MAP_FIXED, ram->fd, 0);
	else if (ram->fd >= 0)
		map_at(at + m->head, length, MAP_SHARED | MAP_FIXED, ram->fd, m->file_head);
	return at + m->head;
}

/* What no call may get: addresses, and ranges of a file. */
struct fence {
	uint64_t from, to;
	bool file;
	dev_t device;
	uint64_t inode;
	void *blocked; /* our mapping, so that nothing else is put beside an alias */
};

static struct {
	pthread_mutex_t lock;
	struct fence fence[FENCES];
	unsigned int count;
	bool broken;
	char how[200];
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct hgm_sys *kernel;
static struct hgm_sys sys;
static bool without_scan;

/* @file: bytes of this file; NULL: addresses */
static void check(const char *call, const struct stat *file, uint64_t from, uint64_t length)
{
	pthread_mutex_lock(&all.lock);
	for (unsigned int i = 0; i < all.count && !all.broken; i++) {
		const struct fence *e = &all.fence[i];

		if (e->file != !!file || from >= e->to || from + length <= e->from)
			continue;
		if (file && (e->device != file->st_dev || e->inode != file->st_ino))
			continue;
		all.broken = true;
		snprintf(all.how, sizeof(all.how),
			 "%s of [%#llx, +%#llx) meets a margin [%#llx, %#llx)", call,
			 (unsigned long long)from, (unsigned long long)length,
			 (unsigned long long)e->from, (unsigned long long)e->to);
	}
	pthread_mutex_unlock(&all.lock);
}

static void check_at(const char *call, const void *at, uint64_t length)
{
	check(call, NULL, (uintptr_t)at, length);
}

static void check_file(const char *call, int fd, uint64_t from, uint64_t length)
{
	struct stat st;

	if (!fstat(fd, &st))
		check(call, &st, from, length);
}

static int fenced_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		       uint64_t offset)
{
	if (flags & MAP_FIXED)
		check_at("mmap", addr, len);
	return kernel->mmap(out, addr, len, prot, flags, fd, offset);
}

static int fenced_munmap(void *addr, uint64_t len)
{
	check_at("munmap", addr, len);
	return kernel->munmap(addr, len);
}

static int fenced_mprotect(void *addr, uint64_t len, int prot)
{
	check_at("mprotect", addr, len);
	return kernel->mprotect(addr, len, prot);
}

static int fenced_madvise(void *addr, uint64_t len, int advice)
{
	check_at("madvise", addr, len);
	return kernel->madvise(addr, len, advice);
}

static int fenced_mincore(const void *addr, uint64_t len, unsigned char *resident)
{
	check_at("mincore", addr, len);
	return kernel->mincore(addr, len, resident);
}

static int64_t fenced_copy(void *to, const void *from, uint64_t len)
{
	check_at("copy to", to, len);
	return kernel->copy(to, from, len);
}

static int fenced_punch_hole(int fd, uint64_t offset, uint64_t len)
{
	check_file("punch_hole", fd, offset, len);
	return kernel->punch_hole(fd, offset, len);
}

static ssize_t fenced_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	check_file("pread", fd, offset, len);
	return kernel->pread(fd, buf, len, offset);
}

static int fenced_scan(int fd, const void *start, const void *end, uint64_t category,
		       struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end)
{
	check_at("PAGEMAP_SCAN", start, (uintptr_t)end - (uintptr_t)start);
	if (without_scan)
		return -ENOTTY;
	return kernel->pagemap_scan(fd, start, end, category, out, out_len, walk_end);
}

static int fenced_written(int fd, const void *start, const void *end, struct hgm_pm_region *out,
			  uint64_t out_len, uint64_t *walk_end)
{
	check_at("PAGEMAP_SCAN that protects", start, (uintptr_t)end - (uintptr_t)start);
	return kernel->pagemap_take_written(fd, start, end, out, out_len, walk_end);
}

static int fenced_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	check_at("UFFDIO_REGISTER", addr, len);
	return kernel->uffd_register(fd, addr, len, modes, ioctls);
}

static int fenced_unregister(int fd, void *addr, uint64_t len)
{
	check_at("UFFDIO_UNREGISTER", addr, len);
	return kernel->uffd_unregister(fd, addr, len);
}

static int fenced_wake(int fd, void *addr, uint64_t len)
{
	check_at("UFFDIO_WAKE", addr, len);
	return kernel->uffd_wake(fd, addr, len);
}

static int fenced_uffd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			    int64_t *done)
{
	check_at("UFFDIO_COPY", dst, len);
	return kernel->uffd_copy(fd, dst, src, len, mode, done);
}

static int fenced_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	check_at("UFFDIO_ZEROPAGE", addr, len);
	return kernel->uffd_zeropage(fd, addr, len, mode, done);
}

static int fenced_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	check_at("UFFDIO_CONTINUE", addr, len);
	return kernel->uffd_continue(fd, addr, len, mode, done);
}

static int fenced_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	check_at("UFFDIO_POISON", addr, len);
	return kernel->uffd_poison(fd, addr, len, mode, done);
}

static int fenced_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	check_at("UFFDIO_WRITEPROTECT", addr, len);
	return kernel->uffd_writeprotect(fd, addr, len, mode);
}

void fence_set_up(void)
{
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return;
	kernel = hgm_sys;
	sys = *kernel;
	sys.mmap = fenced_mmap;
	sys.munmap = fenced_munmap;
	sys.mprotect = fenced_mprotect;
	sys.madvise = fenced_madvise;
	sys.mincore = fenced_mincore;
	sys.copy = fenced_copy;
	sys.punch_hole = fenced_punch_hole;
	sys.pread = fenced_pread;
	sys.pagemap_scan = fenced_scan;
	sys.pagemap_take_written = fenced_written;
	sys.uffd_register = fenced_register;
	sys.uffd_unregister = fenced_unregister;
	sys.uffd_wake = fenced_wake;
	sys.uffd_copy = fenced_uffd_copy;
	sys.uffd_zeropage = fenced_zeropage;
	sys.uffd_continue = fenced_continue;
	sys.uffd_poison = fenced_poison;
	sys.uffd_writeprotect = fenced_writeprotect;
	hgm_sys = &sys;
}

void fence_without_scan(bool without)
{
	without_scan = without;
}

static void add(struct fence e)
{
	if (e.from >= e.to)
		return;
	pthread_mutex_lock(&all.lock);
	assert_true(all.count < FENCES);
	all.fence[all.count++] = e;
	pthread_mutex_unlock(&all.lock);
}

static void block(uint64_t from, uint64_t to)
{
	void *at;

	if (from >= to)
		return;
	at = mmap((void *)(uintptr_t)from, to - from, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if ((uintptr_t)at != from) /* something else is there already */
		return;
	add((struct fence){ .from = from, .to = to, .blocked = at });
}

/* Before the region is created. */
static void fence_caller(const struct ram *ram)
{
	uint64_t start = (uintptr_t)ram->mapping, end = start + ram->length;
	struct stat st;

	if (ram->mapping) {
		add((struct fence){ .from = (uintptr_t)ram->around, .to = start });
		add((struct fence){ .from = end,
				    .to = (uintptr_t)ram->around + ram->around_length });
	}
	if (ram->fd < 0)
		return;
	assert_int_equal(fstat(ram->fd, &st), 0);
	add((struct fence){
		.to = ram->fd_offset, .file = true, .device = st.st_dev, .inode = st.st_ino });
	add((struct fence){ .from = ram->fd_offset + ram->length,
			    .to = UINT64_MAX / 2,
			    .file = true,
			    .device = st.st_dev,
			    .inode = st.st_ino });
}

/* What the library has mapped, and the rest of the blocks. */
static void fence_library(const struct ram *ram)
{
	uint64_t start = (uintptr_t)ram->addr, end = start + ram->length;
	uint64_t head = start % (2 * MIB), alias = (uintptr_t)ram->region->alias;

	if (!ram->mapping) {
		block(start - head, start);
		block(end, block_end(end));
	}
	if (alias) {
		block(alias, alias + head);
		block(alias + head + ram->length, block_end(alias + head + ram->length));
	}
}

void fence_end(void)
{
	bool broken;

	for (unsigned int i = 0; i < all.count; i++)
		if (all.fence[i].blocked)
			munmap(all.fence[i].blocked, all.fence[i].to - all.fence[i].from);
	pthread_mutex_lock(&all.lock);
	all.count = 0;
	broken = all.broken;
	all.broken = false;
	pthread_mutex_unlock(&all.lock);
	if (broken)
		fail_msg("%s", all.how);
}

int ram_try_within(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
		   struct hgm_source *src, uint64_t source_offset, uint32_t flags,
		   const struct margins *m)
{
	bool has_fd = backing != BACKING_MAPPING_ANON;
	bool maps = backing != BACKING_FD && backing != BACKING_FD_LAZY;
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = length,
				     .source = src,
				     .source_offset = source_offset,
				     .flags = flags,
				     .backing = maps ? HGM_BACKING_MAPPING : HGM_BACKING_FD };
	int rc;

	assert_true(backing >= BACKING_FD && backing <= BACKING_MAPPING_ANON);
	*ram = (struct ram){ .fd = has_fd ? make_file(m, length) : -1,
			     .fd_offset = has_fd ? m->file_head : 0,
			     .length = length };
	if (backing == BACKING_FD_LAZY || backing == BACKING_MAPPING_LAZY)
		o.flags |= HGM_REGION_LAZY;
	if (maps)
		ram->mapping = map_caller(ram, m, length);
	o.addr = ram->mapping;
	o.fd = ram->fd;
	o.fd_offset = ram->fd_offset;
	if (hgm_sys == &sys)
		fence_caller(ram);
	rc = hgm_region_create(&ram->region, h, &o);
	if (rc)
		return rc;
	ram->addr = hgm_region_addr(ram->region);
	if (hgm_sys == &sys)
		fence_library(ram);
	return 0;
}

static void assert_canaries(const char *from, const char *to, const char *where, const char *what)
{
	for (const char *at = from; at < to; at++)
		if (*(const uint8_t *)at != CANARY)
			fail_msg("%s: byte %lld %s is %#x", what, (long long)(at - from), where,
				 *(const uint8_t *)at);
}

static void assert_file_margin(int fd, uint64_t from, uint64_t to, const char *what)
{
	char page[PAGE];

	for (; from < to; from += PAGE) {
		assert_int_equal(pread(fd, page, PAGE, (off_t)from), PAGE);
		assert_canaries(page, page + PAGE, "of a page around the region in its file", what);
	}
}

void assert_margins(const struct ram *ram, const char *what)
{
	struct stat st;

	if (ram->around) {
		assert_canaries(ram->around, ram->mapping, "of the memory before the region", what);
		assert_canaries(ram->mapping + ram->length, ram->around + ram->around_length,
				"of the memory behind the region", what);
	}
	if (ram->fd < 0)
		return;
	assert_int_equal(fstat(ram->fd, &st), 0);
	assert_file_margin(ram->fd, 0, ram->fd_offset, what);
	assert_file_margin(ram->fd, ram->fd_offset + ram->length, (uint64_t)st.st_size, what);
}
