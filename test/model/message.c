/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading a userfaultfd: which faults the modelled kernel would report, and with what address.
 *
 * The rules: with EXACT_ADDRESS, the address of the byte. Without it, the start of the huge page
 * or, for MINOR in split memory, of the 4 KiB page.
 */
#include "state.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <unistd.h>

static void tell(struct ctx *ctx, struct vma *v, struct uffd_msg *msg, uint64_t kind)
{
	uint64_t addr = msg->arg.pagefault.address;
	uint64_t grain = v->file->block;
	uint64_t queued_at;

	msg->arg.pagefault.flags = (msg->arg.pagefault.flags & HGM_UFFD_FAULT_WRITE) | kind;
	if (ctx->features & HGM_UFFD_FEATURE_EXACT_ADDRESS)
		return;
	if (v->hm &&
	    (kind & HGM_UFFD_FAULT_MINOR || (kind & HGM_UFFD_FAULT_WP && model.opts.wp_4k)))
		grain = KIB4;
	queued_at = addr & ~(grain - 1);
	if (queued_at != (addr & ~(KIB4 - 1)))
		ctx_queued(ctx, queued_at, addr & ~(KIB4 - 1));
	msg->arg.pagefault.address = queued_at;
}

/* False also if a hole was punched without the model: the huge page is gone then. */
static bool really_cached(struct vma *v, uint64_t block)
{
	struct file *f = v->file;
	int64_t data;

	if (!file_cached(f, block))
		return false;
	data = hgm_sys_linux.lseek(f->fd, (int64_t)(block * f->block), SEEK_DATA);
	if (data >= 0 && (uint64_t)data < (block + 1) * f->block) {
		file_whole(f, block * f->block, f->block);
		return true;
	}
	file_drop(f, block);
	return false;
}

/* Returns false if the modelled kernel would not report the fault. */
static bool translate(struct ctx *ctx, struct uffd_msg *msg)
{
	uint64_t addr = msg->arg.pagefault.address;
	uint64_t page = addr & ~(KIB4 - 1);
	struct vma *v = vma_at(addr);
	struct piece p;

	if (!v || v->ctx != ctx) {
		if (!v && !(ctx->features & HGM_UFFD_FEATURE_EXACT_ADDRESS))
			msg->arg.pagefault.address = page;
		return true;
	}
	if (msg->arg.pagefault.flags & HGM_UFFD_FAULT_WP) {
		tell(ctx, v, msg, HGM_UFFD_FAULT_WP);
		return true;
	}
	if (!(msg->arg.pagefault.flags & HGM_UFFD_FAULT_MINOR) &&
	    !really_cached(v, vma_block(v, addr))) {
		tell(ctx, v, msg, 0);
		return true;
	}
	if (file_poisoned(v->file, vma_block(v, addr))) {
		int64_t done = 0;

		/* SIGBUS; but si_addr_lsb and, without MEMORY_FAILURE, si_code differ. */
		if (hgm_sys_linux.uffd_poison(ctx->fd, (void *)(uintptr_t)page, KIB4, 0, &done))
			hgm_sys_linux.uffd_wake(ctx->fd, (void *)(uintptr_t)page, KIB4);
		return false;
	}
	p = tree_at(&v->page[vma_index(v, addr)], v->file->level,
		    (addr - v->start) % v->file->block);
	if (p.mapped) {
		/* A punched hole removed the real page; or the thread has not been woken yet. */
		int64_t done = 0;

		if (!hgm_sys_linux.uffd_continue(ctx->fd, (void *)(uintptr_t)page, KIB4,
						 p.wp ? HGM_UFFD_CONTINUE_WP : 0, &done))
			return false;
	} else if (!(v->modes & HGM_UFFD_MINOR)) {
		/* The page is in the page cache now, so that the access fills by itself. */
		hgm_sys_linux.uffd_wake(ctx->fd, (void *)(uintptr_t)page, KIB4);
		return false;
	}
	tell(ctx, v, msg, HGM_UFFD_FAULT_MINOR);
	return true;
}

ssize_t model_read(int fd, void *buf, size_t len)
{
	struct uffd_msg *msg = buf;
	struct ctx *ctx;
	ssize_t n;
	size_t told;

	do {
		n = hgm_sys_linux.read(fd, buf, len);
		if (n < (ssize_t)sizeof(*msg))
			return n;
		told = 0;
		model_lock();
		ctx = fd_object(fd, OBJECT_UFFD);
		for (size_t i = 0; ctx && i < (size_t)n / sizeof(*msg); i++)
			if (msg[i].event != UFFD_EVENT_PAGEFAULT || translate(ctx, &msg[i]))
				msg[told++] = msg[i];
		model_unlock();
		if (!ctx)
			return n;
	} while (!told);
	return (ssize_t)(told * sizeof(*msg));
}
