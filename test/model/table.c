/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system call table, model_begin() and model_end().
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/magic.h>

#define HUGE_MASK (63U << HGM_MFD_HUGE_SHIFT)

struct model model;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct hgm_sys *before;
static bool fork_is_watched;

void model_lock(void)
{
	pthread_mutex_lock(&lock);
}

void model_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void model_bug(const char *format, ...)
{
	va_list ap;

	fputs("model: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

void *big_alloc(uint64_t len)
{
	void *p;

	if (hgm_sys_linux.mmap(&p, NULL, len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))
		model_bug("no memory");
	return p;
}

void big_free(void *p, uint64_t len)
{
	if (p)
		hgm_sys_linux.munmap(p, len);
}

/* Record a descriptor that the kernel has just returned. */
static int given(int fd, enum object object, void *what)
{
	model_lock();
	fd_set_object(fd, object, what);
	model_unlock();
	return fd;
}

static int model_close(int fd)
{
	int rc;

	model_lock();
	fd_set_object(fd, OBJECT_OTHER, NULL);
	rc = hgm_sys_linux.close(fd);
	model_unlock();
	return rc;
}

static int model_dup(int fd)
{
	struct file *f;
	int copy;

	model_lock();
	copy = hgm_sys_linux.dup(fd);
	f = fd_file(fd);
	fd_set_object(copy, f ? OBJECT_FILE : OBJECT_OTHER, f);
	model_unlock();
	return copy;
}

static ssize_t model_write(int fd, const void *buf, size_t len)
{
	bool ours;

	model_lock();
	ours = fd_object(fd, OBJECT_FILE);
	model_unlock();
	return ours ? -EINVAL : hgm_sys_linux.write(fd, buf, len);
}

static ssize_t model_pwrite(int fd, const void *buf, size_t len, uint64_t offset)
{
	bool ours;

	model_lock();
	ours = fd_object(fd, OBJECT_FILE);
	model_unlock();
	return ours ? -EINVAL : hgm_sys_linux.pwrite(fd, buf, len, offset);
}

static int model_file_kind(int fd, struct hgm_file_kind *kind)
{
	int rc = hgm_sys_linux.file_kind(fd, kind);
	struct file *f;

	if (rc)
		return rc;
	model_lock();
	f = fd_file(fd);
	if (f) {
		kind->fs_magic = HUGETLBFS_MAGIC;
		kind->fs_block_bytes = f->block;
	}
	model_unlock();
	return 0;
}

static int model_memfd_create(const char *name, unsigned int flags)
{
	unsigned int shift = (flags & HUGE_MASK) >> HGM_MFD_HUGE_SHIFT;
	uint64_t block = shift ? UINT64_C(1) << shift : MIB2;
	struct file *f;
	int fd;

	if (!(flags & MFD_HUGETLB))
		return given(hgm_sys_linux.memfd_create(name, flags), OBJECT_OTHER, NULL);
	if (!pool_of(block))
		return -ENODEV;
	model_lock();
	fd = hgm_sys_linux.memfd_create(name, flags & ~(MFD_HUGETLB | HUGE_MASK));
	if (fd >= 0) {
		f = file_new(fd, block);
		if (f) {
			fd_set_object(fd, OBJECT_FILE, f);
		} else {
			hgm_sys_linux.close(fd);
			fd = -EMFILE;
		}
	}
	model_unlock();
	return fd;
}

static int model_ftruncate(int fd, uint64_t len)
{
	struct file *f;
	int rc;

	model_lock();
	f = fd_file(fd);
	if (f && len % f->block)
		rc = -EINVAL;
	else
		rc = hgm_sys_linux.ftruncate(fd, len);
	if (f && !rc)
		file_resize(f, len);
	model_unlock();
	return rc;
}

static int model_sys_punch_hole(int fd, uint64_t offset, uint64_t len)
{
	bool ours;

	model_lock();
	ours = fd_file(fd);
	model_unlock();
	return ours ? model_punch_hole(fd, offset, len) : hgm_sys_linux.punch_hole(fd, offset, len);
}

/* For huge pages, the kernel reports what is mapped, not what is in the page cache. */
static int model_mincore(const void *addr, uint64_t len, unsigned char *resident)
{
	struct vma *v;
	uint64_t from;

	model_lock();
	v = vma_at((uintptr_t)addr);
	if (v && model.opts.hgm)
		vma_mincore(v, (uintptr_t)addr, (uintptr_t)addr + len);
	if (!v) {
		model_unlock();
		return hgm_sys_linux.mincore(addr, len, resident);
	}
	from = (uintptr_t)addr - v->start;
	vma_sync_range(v, (uintptr_t)addr, (uintptr_t)addr + len);
	for (uint64_t at = from; at < from + len; at += KIB4)
		resident[(at - from) / KIB4] =
			tree_at(&v->page[at / v->file->block], v->file->level, at % v->file->block)
				.mapped;
	model_unlock();
	return 0;
}

static int model_fsync(int fd)
{
	return hgm_sys_linux.fsync(fd);
}

static int model_eventfd(void)
{
	return given(hgm_sys_linux.eventfd(), OBJECT_OTHER, NULL);
}

static int new_uffd(int fd)
{
	struct ctx *ctx;

	if (fd < 0)
		return fd;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		abort();
	ctx->fd = fd;
	return given(fd, OBJECT_UFFD, ctx);
}

static int model_userfaultfd(int flags)
{
	return new_uffd(hgm_sys_linux.userfaultfd(flags));
}

static int model_uffd_new(int dev, int flags)
{
	return new_uffd(hgm_sys_linux.uffd_new(dev, flags));
}

/* These functions only forward: a static initialiser cannot copy members of hgm_sys_linux. */
static ssize_t model_pread_nowait(int fd, void *buf, size_t len, uint64_t offset)
{
	return hgm_sys_linux.pread_nowait(fd, buf, len, offset);
}

static int64_t model_lseek(int fd, int64_t offset, int whence)
{
	return hgm_sys_linux.lseek(fd, offset, whence);
}

static int model_poll(struct pollfd *fds, unsigned int n, int64_t timeout_ns)
{
	return hgm_sys_linux.poll(fds, n, timeout_ns);
}

static int model_seal(int fd)
{
	return hgm_sys_linux.seal(fd);
}

static int64_t model_copy(void *to, const void *from, uint64_t len)
{
	return hgm_sys_linux.copy(to, from, len);
}

const struct hgm_sys model_sys = {
	.open = model_open,
	.close = model_close,
	.dup = model_dup,
	.read = model_read,
	.write = model_write,
	.pread = model_pread,
	.pwrite = model_pwrite,
	.pread_nowait = model_pread_nowait,
	.lseek = model_lseek,
	.file_kind = model_file_kind,
	.memfd_create = model_memfd_create,
	.ftruncate = model_ftruncate,
	.punch_hole = model_sys_punch_hole,
	.seal = model_seal,
	.fsync = model_fsync,
	.eventfd = model_eventfd,
	.poll = model_poll,
	.mmap = model_mmap,
	.munmap = model_munmap,
	.mprotect = model_mprotect,
	.madvise = model_madvise,
	.mincore = model_mincore,
	.copy = model_copy,
	.pagemap_scan = model_pagemap_scan,
	.pagemap_take_written = model_pagemap_take_written,
	.userfaultfd = model_userfaultfd,
	.uffd_new = model_uffd_new,
	.uffd_api = model_uffd_api,
	.uffd_register = model_uffd_register,
	.uffd_unregister = model_uffd_unregister,
	.uffd_wake = model_uffd_wake,
	.uffd_copy = model_uffd_copy,
	.uffd_zeropage = model_uffd_zeropage,
	.uffd_continue = model_uffd_continue,
	.uffd_poison = model_uffd_poison,
	.uffd_move = model_uffd_move,
	.uffd_writeprotect = model_uffd_writeprotect,
	.uffd_rwprotect = model_uffd_rwprotect,
	.uffd_set_mode = model_uffd_set_mode,
	.kvm_create_vm = model_kvm_create_vm,
	.kvm_guest_memfd = model_kvm_guest_memfd,
};

static void open_pagemap(void)
{
	model.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (model.pagemap < 0)
		model_bug("/proc/self/pagemap: %s", strerror(errno));
}

/* A child has the mappings, but none of their page tables, and is not registered. */
static void forked(void)
{
	for (struct vma *v = model.vmas; v; v = v->next)
		vma_forked(v);
	if (before) {
		close(model.pagemap); /* of the parent */
		open_pagemap();
	}
	model_unlock();
}

void model_begin(const struct model_opts *opts)
{
	if (before)
		model_bug("one model at a time");
	model = (struct model){ .opts = *opts };
	model.pool[0] = (struct pool){ .bytes = MIB2, .total = opts->pool_2m_pages };
	model.pool[1] = (struct pool){ .bytes = GIB1, .total = opts->pool_1g_pages };
	open_pagemap();
	before = hgm_sys;
	hgm_sys = &model_sys;
	if (!fork_is_watched && pthread_atfork(model_lock, model_unlock, forked))
		model_bug("pthread_atfork");
	fork_is_watched = true;
}

unsigned int model_left(void)
{
	unsigned int n = 0;

	model_lock();
	fd_reconcile();
	for (struct vma *v = model.vmas; v; v = v->next)
		n++;
	for (struct file *f = model.files; f; f = f->next)
		n += f->fds;
	n += (unsigned int)(model.pool[0].taken + model.pool[1].taken);
	n += (unsigned int)(model.pool[0].promised + model.pool[1].promised);
	model_unlock();
	return n;
}

void model_end(void)
{
	unsigned int left = model_left();

	if (left)
		fprintf(stderr,
			"model: left behind: %u descriptors, mappings and huge pages; of these "
			"%llu x 2 MiB and %llu x 1 GiB\n",
			left, (unsigned long long)model.pool[0].taken,
			(unsigned long long)model.pool[1].taken);
	hgm_sys = before;
	before = NULL;
	model_lock();
	fd_forget_all();
	vma_remove(0, UINT64_MAX);
	written_end();
	model_unlock();
	close(model.pagemap);
}

struct model_leaves model_leaves(const void *addr, uint64_t len)
{
	uint64_t start = (uintptr_t)addr;
	struct leaf_count count = { 0 };

	model_lock();
	for (struct vma *v = vma_next(start); v && v->start < start + len; v = v->next) {
		uint64_t block = v->file->block;
		uint64_t at = v->start > start ? v->start : start - (start - v->start) % block;

		for (; at < v->end && at < start + len; at += block) {
			vma_sync(v, vma_index(v, at));
			tree_count(&v->page[vma_index(v, at)], v->file->level, &count);
		}
	}
	model_unlock();
	return (struct model_leaves){ .pud = count.bytes[LEVEL_PUD],
				      .pmd = count.bytes[LEVEL_PMD],
				      .pte = count.bytes[LEVEL_PTE],
				      .tables_4k = count.tables_4k };
}
