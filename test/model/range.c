/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The operations on ranges: CONTINUE, COPY, ZEROPAGE, POISON, MOVE, WRITEPROTECT.
 */
#include "state.h"

#include <errno.h>
#include <unistd.h>

/* The ioctl's check of its arguments, before the result field is written. */
static bool sane(uint64_t start, uint64_t len, uint64_t mode, uint64_t modes_known)
{
	return !(start % KIB4) && !(len % KIB4) && len && start + len > start &&
	       !(mode & ~modes_known);
}

/* Turn the bytes done and the first error into the ioctl's result. */
static int result(uint64_t done_bytes, uint64_t len, int rc, int64_t *done)
{
	*done = done_bytes ? (int64_t)done_bytes : rc;
	if (!done_bytes)
		return rc;
	return done_bytes == len ? 0 : -EAGAIN;
}

static enum level largest(const struct vma *v, uint64_t at, uint64_t end)
{
	enum level level = v->file->level;

	/* The file offset need not be checked: it has the same alignment. */
	while (level > LEVEL_PTE && (at % level_bytes(level) || end - at < level_bytes(level)))
		level--;
	return level;
}

/* Map one leaf. The tables above it stay even if this fails. */
static int continue_one(struct vma *v, uint64_t at, enum level level, bool wp)
{
	struct entry *root = &v->page[vma_index(v, at)];
	uint64_t offset = (at - v->start) % v->file->block;
	uint64_t block = vma_block(v, at);
	enum kind kind = KIND_HOLE;
	int rc;

	vma_sync(v, vma_index(v, at));
	if (file_poisoned(v->file, block))
		return -EIO;
	rc = tree_walk(root, v->file->level, offset, level, &kind);
	if (!file_cached(v->file, block)) /* looked up before the entry is looked at */
		return -EFAULT;
	if (rc || kind != KIND_HOLE) /* also an empty table */
		return -EEXIST;
	tree_map(root, v->file->level, offset, level, wp);
	return 0;
}

static int continue_range(struct vma *v, uint64_t start, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t grain = vma_takes_pieces(v) ? KIB4 : v->file->block;
	bool wp = mode & HGM_UFFD_CONTINUE_WP;
	uint64_t at = start;
	int rc = 0;

	if (!v->ctx || start + len > v->end)
		return result(0, len, -ENOENT, done);
	if ((wp && !(v->modes & HGM_UFFD_WP)) || start % grain || len % grain)
		return result(0, len, -EINVAL, done);
	while (!rc && at < start + len) {
		enum level level = largest(v, at, start + len);

		rc = continue_one(v, at, level, wp);
		if (!rc)
			at += level_bytes(level);
	}
	if (at > start) {
		/*
		 * Map a single page and wake its waiters in one call. If the kernel has already
		 * mapped it by itself (MISSING only), no thread waits for it.
		 */
		if (at - start == KIB4 && !(mode & ~HGM_UFFD_CONTINUE_WP) && !v->ctx->waiters &&
		    !hgm_sys_linux.uffd_continue(v->ctx->fd, (void *)(uintptr_t)start, KIB4, mode,
						 done))
			return result(KIB4, len, rc, done);
		real_map(v, start, at - start, wp);
		if (!(mode & HGM_UFFD_CONTINUE_DONTWAKE))
			ctx_wake(v->ctx, start, at - start);
	}
	return result(at - start, len, rc, done);
}

int model_uffd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t known = HGM_UFFD_CONTINUE_DONTWAKE;
	uint64_t start = (uintptr_t)addr;
	struct vma *v;
	int rc;

	*done = 0;
	if (model_has(HGM_UFFD_FEATURE_WP_UNPOPULATED)) /* added in the same release */
		known |= HGM_UFFD_CONTINUE_WP;
	if (!sane(start, len, mode, known))
		return -EINVAL;
	model_lock();
	v = vma_at(start);
	if (v) {
		rc = continue_range(v, start, len, mode, done);
		model_unlock();
		return rc;
	}
	model_unlock();
	return hgm_sys_linux.uffd_continue(fd, addr, len, mode, done);
}

static int copy_range(struct vma *v, uint64_t start, const char *src, uint64_t len, uint64_t mode,
		      int64_t *done)
{
	uint64_t block = v->file->block;
	bool wp = mode & HGM_UFFD_COPY_WP;
	uint64_t at = start;
	int rc = 0;

	if (!v->ctx || start + len > v->end)
		return result(0, len, -ENOENT, done);
	if ((wp && !(v->modes & HGM_UFFD_WP)) || start % block || len % block)
		return result(0, len, -EINVAL, done);
	for (; !rc && at < start + len; at += rc ? 0 : block) {
		uint64_t index = vma_index(v, at);

		if (v->page[index].kind != KIND_HOLE || file_cached(v->file, vma_block(v, at))) {
			rc = -EEXIST;
			continue;
		}
		rc = file_allocate(v->file, vma_block(v, at));
		if (!rc && pwrite(v->file->fd, src + (at - start), block,
				  (off_t)(v->offset + (at - v->start))) != (ssize_t)block)
			rc = -EFAULT;
		if (rc)
			continue;
		tree_map(&v->page[index], v->file->level, 0, v->file->level, wp);
		real_map(v, at, block, wp);
	}
	if (at > start && !(mode & HGM_UFFD_COPY_DONTWAKE))
		ctx_wake(v->ctx, start, at - start);
	return result(at - start, len, rc, done);
}

int model_uffd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t start = (uintptr_t)dst;
	struct vma *v;
	int rc;

	*done = 0;
	model_lock();
	v = vma_at(start);
	if (!v) {
		model_unlock();
		return hgm_sys_linux.uffd_copy(fd, dst, src, len, mode, done);
	}
	rc = -EINVAL;
	if (sane(start, len, mode, HGM_UFFD_COPY_DONTWAKE | HGM_UFFD_COPY_WP))
		rc = copy_range(v, start, src, len, mode, done);
	model_unlock();
	return rc;
}

/* There is no huge zero page for hugetlb. */
int model_uffd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t start = (uintptr_t)addr;
	struct vma *v;

	*done = 0;
	model_lock();
	v = vma_at(start);
	model_unlock();
	if (!v)
		return hgm_sys_linux.uffd_zeropage(fd, addr, len, mode, done);
	if (!sane(start, len, mode, HGM_UFFD_ZEROPAGE_DONTWAKE))
		return -EINVAL;
	return result(0, len, v->ctx && start + len <= v->end ? -EINVAL : -ENOENT, done);
}

static int poison_range(struct vma *v, uint64_t start, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t block = v->file->block;
	uint64_t at = start;
	int rc = 0;

	if (!v->ctx || start + len > v->end)
		return result(0, len, -ENOENT, done);
	if (start % block || len % block)
		return result(0, len, -EINVAL, done);
	while (!rc && at < start + len) {
		struct entry *e = &v->page[vma_index(v, at)];
		int64_t real = 0;

		vma_sync(v, vma_index(v, at));
		if (e->kind != KIND_HOLE || e->wp || e->poison) {
			rc = -EEXIST;
			break;
		}
		rc = hgm_sys_linux.uffd_poison(v->ctx->fd, (void *)(uintptr_t)at, block,
					       HGM_UFFD_POISON_DONTWAKE, &real);
		if (!rc) {
			tree_poison(e);
			at += block;
		}
	}
	if (at > start && !(mode & HGM_UFFD_POISON_DONTWAKE))
		ctx_wake(v->ctx, start, at - start);
	return result(at - start, len, rc, done);
}

int model_uffd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t start = (uintptr_t)addr;
	struct vma *v;
	int rc = -EINVAL;

	*done = 0;
	if (!model_has(HGM_UFFD_FEATURE_POISON)) /* userfaultfd's result for an unknown ioctl */
		return -EINVAL;
	model_lock();
	v = vma_at(start);
	if (v && sane(start, len, mode, HGM_UFFD_POISON_DONTWAKE))
		rc = poison_range(v, start, len, mode, done);
	model_unlock();
	return v ? rc : hgm_sys_linux.uffd_poison(fd, addr, len, mode, done);
}

int model_uffd_move(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t to = (uintptr_t)dst;
	uint64_t from = (uintptr_t)src;
	bool ours;

	*done = 0;
	if (!model_has(HGM_UFFD_FEATURE_MOVE))
		return -EINVAL;
	model_lock();
	ours = vma_in(to, to + len) || vma_in(from, from + len);
	model_unlock();
	if (ours)
		return result(0, len, -EINVAL, done);
	return hgm_sys_linux.uffd_move(fd, dst, src, len, mode, done);
}

static int protect_range(struct vma *v, uint64_t start, uint64_t len, uint64_t mode)
{
	uint64_t block = v->file->block;
	uint64_t grain = v->hm && model.opts.wp_4k ? KIB4 : block;
	bool wp = mode & HGM_UFFD_WP_PROTECT;
	uint64_t at, end = start + len;
	int rc;

	if (!(v->modes & HGM_UFFD_WP) || end > v->end)
		return -ENOENT;
	if (start % grain || len % grain)
		return -EINVAL;
	vma_sync_range(v, start, end);
	written_look(start, end, true);
	if (!wp)
		written_watch(v, start, end);
	rc = hgm_sys_linux.uffd_writeprotect(v->ctx->fd, (void *)(uintptr_t)start, len,
					     wp ? HGM_UFFD_WP_PROTECT : HGM_UFFD_WP_DONTWAKE);
	for (at = start; !rc && at < end;) {
		uint64_t base = at - (at - v->start) % block;
		uint64_t until = base + block < end ? base + block : end;
		struct entry *e = &v->page[vma_index(v, at)];

		tree_protect(e, v->file->level, at - base, until - base, wp);
		at = until;
	}
	if (!rc && !wp && !(mode & HGM_UFFD_WP_DONTWAKE))
		ctx_wake(v->ctx, start, len);
	return rc;
}

int model_uffd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	uint64_t start = (uintptr_t)addr;
	struct vma *v;
	int rc = -EINVAL;

	model_lock();
	v = vma_at(start);
	if (v && sane(start, len, mode, HGM_UFFD_WP_PROTECT | HGM_UFFD_WP_DONTWAKE) &&
	    mode != (HGM_UFFD_WP_PROTECT | HGM_UFFD_WP_DONTWAKE))
		rc = protect_range(v, start, len, mode);
	model_unlock();
	return v ? rc : hgm_sys_linux.uffd_writeprotect(fd, addr, len, mode);
}

/* Newer than the kernels of this model. */
int model_uffd_rwprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	(void)fd;
	(void)addr;
	(void)len;
	(void)mode;
	return -EINVAL;
}

int model_uffd_set_mode(int fd, uint64_t enable, uint64_t disable)
{
	(void)fd;
	(void)enable;
	(void)disable;
	return -EINVAL;
}

int model_kvm_create_vm(int kvm)
{
	return hgm_sys_linux.kvm_create_vm(kvm);
}

int model_kvm_guest_memfd(int vm, uint64_t len, uint64_t flags)
{
	return hgm_sys_linux.kvm_guest_memfd(vm, len, flags);
}
