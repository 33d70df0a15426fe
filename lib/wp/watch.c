/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's watch of a region: parts of the region are protected, and the caller is asked what
 * happens to a write to them.
 *
 * The watch belongs to the region. A thread that uses the watch holds a reference to it, and checks
 * under the watch's lock whether it has ended. It ends by hgm_region_unwatch(), or with the region.
 */
#include <errno.h>
#include <stdlib.h>

#include <hgm/protect.h>

#include "install/wp.h"
#include "region/hgm.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/opts.h"

struct watch {
	struct hgm_wp wp;
	struct hgm_watch_opts opts;
	pthread_mutex_t lock;
	struct hgm_region *r; /* NULL: the watch has ended */
};

static struct watch *watch_of(struct hgm_wp *g)
{
	return (struct watch *)((char *)g - offsetof(struct watch, wp));
}

static int ask(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	const struct hgm_watch_opts *o = &watch_of(g)->opts;
	struct hgm_span what = { hgm_region_offset_of(r, page), pages << HGM_PAGE_SHIFT };
	uint32_t verdict = o->verdict;

	if (o->write) {
		hgm_thread_calls_back(true);
		verdict = o->write(o->user, r, &what);
		hgm_thread_calls_back(false);
	}
	if (verdict != HGM_WRITE_ALLOW)
		return HGM_WP_WAITS;
	hgm_wp_clear_pages(r, page, pages);
	return 0;
}

static bool end_watch(struct watch *w)
{
	bool lasts;

	pthread_mutex_lock(&w->lock);
	lasts = w->r;
	if (lasts)
		hgm_wp_end(w->r);
	w->r = NULL;
	pthread_mutex_unlock(&w->lock);
	if (lasts)
		hgm_wp_put(&w->wp); /* the region's reference */
	return lasts;
}

static void leave(struct hgm_wp *g, struct hgm_region *r)
{
	(void)r;
	end_watch(watch_of(g));
}

static void free_watch(struct hgm_wp *g)
{
	struct watch *w = watch_of(g);

	pthread_mutex_destroy(&w->lock);
	free(w);
}

static const struct hgm_wp_ops ops = { .write = ask, .leave = leave, .free = free_watch };

static int check_thread(const char *function)
{
	return hgm_thread_is_calling_back()
		       ? hgm_fail(-EDEADLK,
				  "%s: called from inside hgm_write_fn, so it would wait for "
				  "itself; call it on another thread",
				  function)
		       : 0;
}

int hgm_region_watch(struct hgm_region *r, const struct hgm_watch_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_watch_opts o = { 0 };
	struct watch *w;
	int rc = 0;

	if (!r)
		return hgm_fail(-EINVAL, "hgm_region_watch: the region is NULL");
	rc = check_thread("hgm_region_watch");
	if (!rc && opts)
		rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_watch_opts, reserved),
				 opts, "hgm_region_watch");
	if (!rc && (o.verdict > HGM_WRITE_WAIT || o.reserved))
		rc = hgm_fail(-EINVAL, "hgm_region_watch: unknown verdict %u, or reserved is not 0",
			      o.verdict);
	if (rc)
		return rc;
	rc = hgm_wp_check_faults(r, "hgm_region_watch");
	if (rc)
		return rc;
	w = calloc(1, sizeof(*w));
	if (!w)
		return hgm_fail(-ENOMEM, "hgm_region_watch: out of memory");
	w->wp = (struct hgm_wp){ .ops = &ops, .name = "a watch", .refs = 1 };
	w->opts = o;
	w->r = r;
	pthread_mutex_init(&w->lock, NULL);
	pthread_mutex_lock(&w->lock); /* no thread may use the watch before it has begun */
	rc = hgm_wp_begin(r, &w->wp, NULL);
	pthread_mutex_unlock(&w->lock);
	if (rc)
		free_watch(&w->wp);
	return rc;
}

/* The pages of a range, in whole units of protection. */
struct pages {
	uint64_t first;
	uint64_t count;
};

static int pages_of(const struct hgm_region *r, uint64_t offset, uint64_t length, uint32_t flags,
		    struct pages *p, const char *function)
{
	uint64_t unit = r->wp_bytes, end = offset + length;

	if (flags & ~HGM_PROTECT_ROUND)
		return hgm_fail(-EINVAL, "%s: unknown flags 0x%x", function, flags);
	if (!length || offset >= r->length || length > r->length - offset)
		return hgm_fail(-EINVAL, "%s: [%llu, +%llu) is empty or not inside the region",
				function, (unsigned long long)offset, (unsigned long long)length);
	if (!(flags & HGM_PROTECT_ROUND) && (offset % unit || (end % unit && end != r->length)))
		return hgm_fail(-EINVAL,
				"%s: [%llu, +%llu): this memory is protected in units of %llu "
				"bytes; HGM_PROTECT_ROUND extends the range to whole units",
				function, (unsigned long long)offset, (unsigned long long)length,
				(unsigned long long)unit);
	offset = offset / unit * unit;
	end = (end + unit - 1) / unit * unit;
	end = end < hgm_region_mapped(r) ? end : hgm_region_mapped(r);
	p->first = hgm_region_page_at(r, offset);
	p->count = (end - offset) >> HGM_PAGE_SHIFT;
	return 0;
}

static void tell(const struct hgm_region *r, const struct pages *p, struct hgm_span *what)
{
	if (!what)
		return;
	what->offset = hgm_region_offset_of(r, p->first);
	what->length = p->count << HGM_PAGE_SHIFT;
	if (what->length > r->length - what->offset) /* the unit ends beyond the region */
		what->length = r->length - what->offset;
}

static uint64_t blocks_of(const struct hgm_region *r, const struct pages *p, uint64_t *first)
{
	*first = hgm_region_block(r, p->first);
	return hgm_region_block(r, p->first + p->count - 1) - *first + 1;
}

static bool has_wp_bits(const struct hgm_region *r, uint64_t block)
{
	uint64_t pages = r->block_bytes >> HGM_PAGE_SHIFT, first = block * pages;
	uint64_t left = (r->mapped >> HGM_PAGE_SHIFT) - first;

	return hgm_wp_any(r, first, pages < left ? pages : left);
}

/* Let blocks become huge again if no wp bit of their pages is set. */
static void let_go(struct hgm_region *r, uint64_t block, uint64_t blocks)
{
	for (uint64_t b = block; b < block + blocks; b++)
		if (!has_wp_bits(r, b))
			hgm_wp_release_block(r, b);
}

static int protect(struct hgm_region *r, const struct pages *p)
{
	uint64_t block, blocks = blocks_of(r, p, &block);
	int rc;

	hgm_wp_hold(r, block, blocks);
	rc = hgm_wp_register(r, block, blocks);
	if (!rc)
		rc = hgm_wp_protect(r, p->first, p->count);
	if (rc) { /* threads that wait to write to pages protected earlier continue */
		hgm_wp_clear_pages(r, p->first, p->count);
		hgm_wp_unprotect(r, p->first, p->count);
	}
	for (uint64_t b = block; b < block + blocks; b++)
		hgm_wp_map_again(r, b);
	if (rc)
		let_go(r, block, blocks);
	return rc;
}

static int unprotect(struct hgm_region *r, const struct pages *p)
{
	uint64_t block, blocks = blocks_of(r, p, &block);

	hgm_wp_clear_pages(r, p->first, p->count);
	hgm_wp_unprotect(r, p->first, p->count);
	let_go(r, block, blocks);
	return 0;
}

/* Call @verb for a range, under the watch's lock. */
static int with_watch(struct hgm_region *r, const struct pages *p,
		      int (*verb)(struct hgm_region *, const struct pages *), const char *function)
{
	struct hgm_wp *g = hgm_wp_get(r, &ops);
	struct watch *w;
	int rc;

	if (!g)
		return hgm_fail(-EINVAL,
				"%s: the region is not under a watch; call hgm_region_watch()",
				function);
	w = watch_of(g);
	pthread_mutex_lock(&w->lock);
	if (w->r)
		rc = verb(r, p);
	else if (atomic_load_explicit(&r->dying, memory_order_acquire))
		rc = hgm_fail(-ECANCELED, "%s: the region is being destroyed", function);
	else
		rc = hgm_fail(-EINVAL, "%s: the watch has ended", function);
	pthread_mutex_unlock(&w->lock);
	hgm_wp_put(g);
	return rc;
}

/* Pins the region, which keeps it alive while a thread is in here. */
static int change(struct hgm_region *r, uint64_t offset, uint64_t length, uint32_t flags,
		  struct hgm_span *what, int (*verb)(struct hgm_region *, const struct pages *),
		  const char *function)
{
	HGM_UNCANCELLED;
	struct pages p = { 0 };
	int rc;

	if (!r)
		return hgm_fail(-EINVAL, "%s: the region is NULL", function);
	rc = check_thread(function);
	if (!rc)
		rc = pages_of(r, offset, length, flags, &p, function);
	if (rc)
		return rc;
	hgm_region_pin(r);
	if (atomic_load_explicit(&r->dying, memory_order_acquire))
		rc = hgm_fail(-ECANCELED, "%s: the region is being destroyed", function);
	else
		rc = with_watch(r, &p, verb, function);
	if (!rc)
		tell(r, &p, what);
	hgm_region_unpin(r);
	return rc;
}

int hgm_region_protect(struct hgm_region *r, uint64_t offset, uint64_t length, uint32_t flags,
		       struct hgm_span *what)
{
	return change(r, offset, length, flags, what, protect, "hgm_region_protect");
}

int hgm_region_unprotect(struct hgm_region *r, uint64_t offset, uint64_t length, uint32_t flags,
			 struct hgm_span *what)
{
	return change(r, offset, length, flags, what, unprotect, "hgm_region_unprotect");
}

int hgm_region_unwatch(struct hgm_region *r)
{
	HGM_UNCANCELLED;
	int rc = check_thread("hgm_region_unwatch");
	struct hgm_wp *g;
	bool ended;

	if (rc)
		return rc;
	g = r ? hgm_wp_get(r, &ops) : NULL;
	if (!g)
		return hgm_fail(-EINVAL, "hgm_region_unwatch: %s",
				r ? "the region is not under a watch" : "the region is NULL");
	ended = end_watch(watch_of(g));
	hgm_wp_put(g);
	return ended ? 0 : hgm_fail(-EINVAL, "hgm_region_unwatch: the watch has already ended");
}
