/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * userfaultfd: the handshake, registration, waking.
 *
 * The real userfaultfd always reports the exact address. On the modelled kernel, a thread whose
 * fault was reported with another address waits at that address. Here it waits at its own address,
 * and is woken when the reported address is woken.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define EVENTS                                                          \
	(HGM_UFFD_FEATURE_EVENT_REMAP | HGM_UFFD_FEATURE_EVENT_REMOVE | \
	 HGM_UFFD_FEATURE_EVENT_UNMAP)

int model_uffd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	uint64_t asked = *features;
	uint64_t offered;
	struct ctx *ctx;
	int rc;

	model_lock();
	ctx = fd_object(fd, OBJECT_UFFD);
	if (!ctx) {
		model_unlock();
		return hgm_sys_linux.uffd_api(fd, features, ioctls);
	}
	*features = *ioctls = 0;
	rc = asked & ~model.opts.features ? -EINVAL : 0;
	if (model.opts.rfc && asked & HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM &&
	    !(asked & HGM_UFFD_FEATURE_EXACT_ADDRESS))
		rc = -EINVAL;
	if (!rc) {
		/* No events: a thread that raises one waits until it is read, but has the lock. */
		offered = (asked & ~EVENTS) | HGM_UFFD_FEATURE_EXACT_ADDRESS;
		if (model.opts.rfc)
			offered &= ~HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM;
		rc = hgm_sys_linux.uffd_api(fd, &offered, ioctls);
	}
	if (!rc) {
		*features = model.opts.features;
		ctx->features = asked;
		ctx->ready = true;
	}
	model_unlock();
	return rc;
}

/* The ioctls that REGISTER offers for huge pages (HGM v2: 0xc, 0x4c, 0x8c, 0xcc). */
static uint64_t huge_ioctls(uint64_t modes)
{
	uint64_t mask = HGM_UFFD_IOCTL_WAKE | HGM_UFFD_IOCTL_COPY;

	if (model_has(HGM_UFFD_FEATURE_POISON))
		mask |= HGM_UFFD_IOCTL_POISON;
	if (modes & HGM_UFFD_WP)
		mask |= HGM_UFFD_IOCTL_WRITEPROTECT;
	if (modes & HGM_UFFD_MINOR)
		mask |= HGM_UFFD_IOCTL_CONTINUE;
	return mask;
}

static uint64_t other_ioctls(uint64_t mask)
{
	if (!model_has(HGM_UFFD_FEATURE_POISON))
		mask &= ~HGM_UFFD_IOCTL_POISON;
	if (!model_has(HGM_UFFD_FEATURE_MOVE))
		mask &= ~HGM_UFFD_IOCTL_MOVE;
	return mask;
}

/* Borders inside a huge page are refused, even in split memory. */
static bool aligned(uint64_t start, uint64_t end)
{
	struct vma *first = vma_at(start);
	struct vma *last = vma_at(end);

	return !(first && start % first->file->block) && !(last && end % last->file->block);
}

static void register_vma(struct vma *v, struct ctx *ctx, uint64_t modes)
{
	/* "Nothing to do": modes that are registered already are not removed. */
	if (v->ctx == ctx && (v->modes & modes) == modes)
		return;
	v->ctx = ctx;
	v->modes = modes;
	if (!(modes & HGM_UFFD_MINOR))
		return;
	/* RFC v2: as good as split, for good */
	if (model.opts.rfc && v->shared && ctx->features & HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM)
		v->hm = true;
	/* Mapped pages cause no message, so they must be mapped in the real page table too. */
	for (uint64_t at = v->start; at < v->end; at += v->file->block)
		real_map_pieces(v, at, true);
}

int model_uffd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	uint64_t start = (uintptr_t)addr;
	uint64_t end = start + len;
	struct ctx *ctx;
	int rc = 0;

	model_lock();
	ctx = fd_object(fd, OBJECT_UFFD);
	if (!ctx || !vma_in(start, end)) {
		rc = hgm_sys_linux.uffd_register(fd, addr, len, modes, ioctls);
		if (!rc)
			*ioctls = other_ioctls(*ioctls);
		model_unlock();
		return rc;
	}
	if (!aligned(start, end))
		rc = -EINVAL;
	if (!rc) {
		for (struct vma *v = vma_next(start); v && v->start < end; v = v->next)
			vma_sync_range(v, v->start, v->end);
		rc = hgm_sys_linux.uffd_register(fd, addr, len, modes, ioctls);
	}
	if (!rc) {
		vma_isolate(start, end);
		for (struct vma *v = vma_next(start); v && v->start < end; v = v->next) {
			vma_sync_range(v, v->start, v->end);
			register_vma(v, ctx, modes);
		}
		*ioctls = huge_ioctls(modes);
	}
	model_unlock();
	return rc;
}

int model_uffd_unregister(int fd, void *addr, uint64_t len)
{
	uint64_t start = (uintptr_t)addr;
	uint64_t end = start + len;
	int rc;

	model_lock();
	if (!aligned(start, end)) {
		rc = -EINVAL;
	} else {
		rc = hgm_sys_linux.uffd_unregister(fd, addr, len);
		if (!rc)
			vma_isolate(start, end);
		for (struct vma *v = vma_next(start); !rc && v && v->start < end; v = v->next)
			if (v->ctx)
				vma_deregister(v);
	}
	model_unlock();
	return rc;
}

void ctx_queued(struct ctx *ctx, uint64_t queued_at, uint64_t page)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		abort();
	*w = (struct waiter){ ctx->waiters, queued_at, page };
	ctx->waiters = w;
}

void ctx_forget_waiters(struct ctx *ctx, uint64_t start, uint64_t end)
{
	struct waiter **at = &ctx->waiters;

	while (*at) {
		struct waiter *w = *at;

		if (w->page < start || w->page >= end) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}

static void real_wake(struct ctx *ctx, uint64_t start, uint64_t len)
{
	if (len)
		hgm_sys_linux.uffd_wake(ctx->fd, (void *)(uintptr_t)start, len);
}

/* The lowest page in [start, end) with a waiter that is queued elsewhere; @end if there is none. */
static uint64_t queued_elsewhere(const struct ctx *ctx, uint64_t start, uint64_t end)
{
	uint64_t lowest = end;

	for (const struct waiter *w = ctx->waiters; w; w = w->next)
		if (w->page >= start && w->page < lowest)
			lowest = w->page;
	return lowest;
}

void ctx_wake(struct ctx *ctx, uint64_t start, uint64_t len)
{
	struct waiter **at = &ctx->waiters;
	uint64_t end = start + len;

	while (*at) {
		struct waiter *w = *at;

		if (w->queued_at < start || w->queued_at >= end) {
			at = &w->next;
			continue;
		}
		real_wake(ctx, w->page, KIB4);
		*at = w->next;
		free(w);
	}
	while (start < end) {
		uint64_t until = queued_elsewhere(ctx, start, end);

		real_wake(ctx, start, until - start);
		start = until + KIB4;
	}
}

int model_uffd_wake(int fd, void *addr, uint64_t len)
{
	struct ctx *ctx;
	int rc = 0;

	model_lock();
	ctx = fd_object(fd, OBJECT_UFFD);
	if (ctx && ctx->waiters && !((uintptr_t)addr % KIB4) && len && !(len % KIB4))
		ctx_wake(ctx, (uintptr_t)addr, len);
	else
		rc = hgm_sys_linux.uffd_wake(fd, addr, len);
	model_unlock();
	return rc;
}

/* The descriptor is being closed: remove its registrations. */
void ctx_close(struct ctx *ctx)
{
	for (struct vma *v = model.vmas; v; v = v->next)
		if (v->ctx == ctx)
			vma_deregister(v);
	ctx_forget_waiters(ctx, 0, UINT64_MAX);
	free(ctx);
}
