/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mmap(), munmap() and mprotect() of the model (not the page-state map of lib/map).
 */
#include "state.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE_FLAGS ((int)(MAP_HUGETLB | 63U << HGM_MFD_HUGE_SHIFT))

/* Let the kernel pick an address, aligned for a huge page. */
static int pick_address(void **out, uint64_t len, uint64_t align)
{
	uint64_t head;
	void *raw;
	int rc = hgm_sys_linux.mmap(&raw, NULL, len + align, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (rc)
		return rc;
	head = -(uintptr_t)raw & (align - 1);
	*out = (char *)raw + head;
	if (head)
		hgm_sys_linux.munmap(raw, head);
	hgm_sys_linux.munmap((char *)*out + len, align - head);
	return 0;
}

static int map_file(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		    struct file *f, uint64_t offset)
{
	struct vma v = { .file = f, .offset = offset, .prot = prot };
	bool picked = false;
	int rc;

	if (!len || offset % f->block)
		return -EINVAL;
	len = (len + f->block - 1) & ~(f->block - 1);
	if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))) {
		rc = pick_address(&addr, len, f->block);
		if (rc)
			return rc;
		picked = true;
		flags |= MAP_FIXED;
	}
	if ((uintptr_t)addr % f->block)
		return -EINVAL;
	v.start = (uintptr_t)addr;
	v.end = v.start + len;
	v.shared = flags & MAP_SHARED;
	rc = vma_isolate(v.start, v.end);
	if (!rc && prot & PROT_WRITE && offset + len > f->size) {
		/* A writable mapping extends a hugetlbfs file. */
		rc = hgm_sys_linux.ftruncate(f->fd, offset + len);
		if (!rc)
			file_resize(f, offset + len);
	}
	if (!rc && v.shared && !(flags & MAP_NORESERVE) && offset + len <= f->size)
		rc = pool_promise(f, offset / f->block, len / f->block);
	if (!rc)
		rc = hgm_sys_linux.mmap(out, addr, len, prot, flags & ~HUGE_FLAGS, fd, offset);
	if (rc) {
		if (picked)
			hgm_sys_linux.munmap(addr, len);
		return rc;
	}
	vma_remove(v.start, v.end);
	vma_add(&v);
	return 0;
}

/* MAP_ANONYMOUS | MAP_HUGETLB: a file without a descriptor. */
static int map_anonymous(void **out, void *addr, uint64_t len, int prot, int flags)
{
	unsigned int shift = (unsigned int)flags >> HGM_MFD_HUGE_SHIFT & 63;
	uint64_t block = shift ? UINT64_C(1) << shift : MIB2;
	struct file *f;
	int fd, rc;

	if (!pool_of(block))
		return -ENODEV;
	fd = hgm_sys_linux.memfd_create("anon_hugepage", 0);
	if (fd < 0)
		return fd;
	f = file_new(fd, block);
	if (!f) {
		hgm_sys_linux.close(fd);
		return -EMFILE;
	}
	len = (len + block - 1) & ~(block - 1);
	rc = hgm_sys_linux.ftruncate(fd, len);
	if (!rc) {
		file_resize(f, len);
		flags = (flags & ~(HUGE_FLAGS | MAP_ANONYMOUS));
		rc = map_file(out, addr, len, prot, flags, fd, f, 0);
	}
	hgm_sys_linux.close(fd);
	file_put(f);
	return rc;
}

int model_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd, uint64_t offset)
{
	struct file *f;
	int rc;

	model_lock();
	f = flags & MAP_ANONYMOUS ? NULL : fd_file(fd);
	if (f) {
		rc = map_file(out, addr, len, prot, flags, fd, f, offset);
	} else if (flags & MAP_ANONYMOUS && flags & MAP_HUGETLB) {
		rc = map_anonymous(out, addr, len, prot, flags);
	} else {
		rc = 0;
		if (flags & MAP_FIXED)
			rc = vma_isolate((uintptr_t)addr, (uintptr_t)addr + len);
		if (!rc)
			rc = hgm_sys_linux.mmap(out, addr, len, prot, flags, fd, offset);
		if (!rc)
			vma_remove((uintptr_t)*out, (uintptr_t)*out + len);
	}
	model_unlock();
	return rc;
}

/* Unmap memory that is not the model's without the lock: EVENT_UNMAP may make the call wait. */
int model_munmap(void *addr, uint64_t len)
{
	uint64_t start = (uintptr_t)addr;
	uint64_t end = start + ((len + KIB4 - 1) & ~(KIB4 - 1));
	int rc;

	model_lock();
	if (!vma_in(start, end)) {
		model_unlock();
		return hgm_sys_linux.munmap(addr, len);
	}
	rc = vma_isolate(start, end);
	if (!rc)
		rc = hgm_sys_linux.munmap(addr, len);
	if (!rc)
		vma_remove(start, end);
	model_unlock();
	return rc;
}

/* The kernel takes a 1 GiB leaf with PROT_NONE for a page table. */
static void forbid_1g_leaf(uint64_t start, uint64_t end, int prot)
{
	for (struct vma *v = vma_next(start); v && v->start < end; v = v->next) {
		uint64_t leaf =
			prot == PROT_NONE || v->prot == PROT_NONE ? vma_1g_leaf(v, start, end) : 0;

		if (leaf)
			model_bug("mprotect(PROT_NONE) of a 1 GiB leaf, munmap() never returns: "
				  "%#llx",
				  (unsigned long long)leaf);
	}
}

int model_mprotect(void *addr, uint64_t len, int prot)
{
	uint64_t start = (uintptr_t)addr;
	uint64_t end = start + ((len + KIB4 - 1) & ~(KIB4 - 1));
	int rc;

	model_lock();
	rc = vma_isolate(start, end);
	if (!rc && model.opts.hgm)
		forbid_1g_leaf(start, end, prot);
	if (!rc)
		rc = hgm_sys_linux.mprotect(addr, len, prot);
	if (!rc)
		for (struct vma *v = vma_next(start); v && v->start < end; v = v->next)
			v->prot = prot;
	model_unlock();
	return rc;
}
