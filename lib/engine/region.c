/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: creation and registration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collapse/collapse.h"
#include "engine.h"
#include "install/resolve.h"
#include "install/suspects.h"
#include "pager/events.h"
#include "pager/pager.h"
#include "region/hgm.h"
#include "region/memory.h"
#include "remote/remote.h"
#include "source/source.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/opts.h"

static int check_opts(const struct hgm_region_opts *o)
{
	const uint32_t flags = HGM_REGION_LAZY | HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE |
			       HGM_REGION_DEFER_COLLAPSE;
	const struct hgm_source *src = o->source;

	if (!src)
		return hgm_fail(-EINVAL, "hgm_region_create: no source; create one with "
					 "hgm_source_file(), _fd(), _memory() or _fn()");
	if (!o->length || o->length % HGM_PAGE_BYTES || o->length > INT64_MAX)
		return hgm_fail(-EINVAL,
				"hgm_region_create: length %llu is zero, not a multiple of 4096, "
				"or too large",
				(unsigned long long)o->length);
	if (o->source_offset % HGM_PAGE_BYTES || o->source_offset > INT64_MAX - o->length)
		return hgm_fail(-EINVAL,
				"hgm_region_create: source_offset %llu is not a multiple of 4096, "
				"or is too large",
				(unsigned long long)o->source_offset);
	if (src->length &&
	    (o->source_offset > src->length || o->length > src->length - o->source_offset))
		return hgm_fail(-EINVAL,
				"hgm_region_create: the source has %llu bytes, but the region "
				"needs [%llu, +%llu); make the region shorter or the source longer",
				(unsigned long long)src->length,
				(unsigned long long)o->source_offset,
				(unsigned long long)o->length);
	if (o->backing > HGM_BACKING_PEER || o->flags & ~flags || o->reserved)
		return hgm_fail(-EINVAL,
				"hgm_region_create: unknown backing %u or flags 0x%x, or reserved "
				"is not 0",
				o->backing, o->flags);
	if (o->flags & HGM_REGION_LAZY && o->backing != HGM_BACKING_FD &&
	    o->backing != HGM_BACKING_MAPPING)
		return hgm_fail(-EINVAL,
				"hgm_region_create: HGM_REGION_LAZY is only for HGM_BACKING_FD and "
				"HGM_BACKING_MAPPING; otherwise use HGM_BACKING_SHMEM_LAZY");
	if (o->backing != HGM_BACKING_FD && o->backing != HGM_BACKING_MAPPING &&
	    (o->fd > 0 || o->fd_offset))
		return hgm_fail(-EINVAL, "hgm_region_create: fd and fd_offset are only for "
					 "HGM_BACKING_FD and HGM_BACKING_MAPPING");
	if (o->backing != HGM_BACKING_MAPPING && o->backing != HGM_BACKING_PEER && o->addr)
		return hgm_fail(-EINVAL, "hgm_region_create: addr is only for HGM_BACKING_MAPPING "
					 "and HGM_BACKING_PEER");
	return 0;
}

static bool overlaps(const struct hgm_source *src, const struct hgm_space *space, uint64_t start,
		     uint64_t length)
{
	uint64_t from = (uintptr_t)src->memory;

	return from && !space->foreign && from < start + length && from + src->length > start;
}

static bool same_mapping(const struct hgm_claim *a, const struct hgm_claim *b)
{
	return a->space == b->space && a->addr && b->addr && a->addr < b->addr + b->length &&
	       a->addr + a->length > b->addr;
}

static bool same_file(const struct hgm_claim *a, const struct hgm_claim *b)
{
	return a->has_file && b->has_file && a->device == b->device && a->inode == b->inode &&
	       a->offset < b->offset + b->length && a->offset + a->length > b->offset;
}

/*
 * The engine's threads must not read from memory that they serve: they would wait for themselves.
 * Memory must not be served twice either: contents that arrive for one region would overwrite what
 * the guest has written through the other, and the kernel lets one userfaultfd register the same
 * memory again. Runs under the table's lock. Includes regions that are being made or are ending.
 */
static int check_overlaps(const struct hgm *h, const struct hgm_claim *claim)
{
	const struct hgm_table *t = atomic_load_explicit(&h->table, memory_order_relaxed);
	bool served =
		claim->addr && overlaps(claim->source, claim->space, claim->addr, claim->length);

	for (const struct hgm_claim *c = h->claims; c; c = c->next) {
		if (same_mapping(c, claim) || same_file(c, claim))
			return hgm_fail(
				-EBUSY,
				"hgm_region_create: a region of this engine already uses this %s",
				same_mapping(c, claim) ? "memory" : "part of the file");
		served |= (c->addr && overlaps(claim->source, c->space, c->addr, c->length)) ||
			  (claim->addr &&
			   overlaps(c->source, claim->space, claim->addr, claim->length));
	}
	for (unsigned int i = 0; i < t->count; i++) {
		const struct hgm_region *r = t->region[i];

		served |= overlaps(claim->source, r->view.space, (uintptr_t)r->view.start,
				   hgm_region_mapped(r));
	}
	if (served)
		return hgm_fail(-EINVAL, "hgm_region_create: the memory source lies in a region of "
					 "this engine, whose threads would wait for themselves");
	return 0;
}

/* Reserve the memory for this region alone, before anything is made of it or dropped. */
static int claim_memory(struct hgm_claim **out, struct hgm *h, const struct hgm_choice *c)
{
	const struct hgm_region_opts *o = c->opts;
	struct hgm_claim *claim = calloc(1, sizeof(*claim));
	int rc;

	if (!claim)
		return hgm_fail(-ENOMEM, "hgm_region_create: out of memory");
	claim->source = o->source;
	claim->space = hgm_peer_space(h, o);
	claim->addr = (uintptr_t)o->addr; /* 0 unless the mapping is the caller's */
	claim->length = o->length;
	claim->has_file = c->kind.block_bytes;
	claim->device = c->kind.device;
	claim->inode = c->kind.inode;
	claim->offset = o->fd_offset;
	pthread_mutex_lock(&h->table_lock);
	rc = check_overlaps(h, claim);
	if (!rc) {
		claim->next = h->claims;
		h->claims = claim;
	}
	pthread_mutex_unlock(&h->table_lock);
	if (rc)
		free(claim);
	else
		*out = claim;
	return rc;
}

static void give_memory_back(struct hgm *h, struct hgm_claim *claim)
{
	struct hgm_claim **link = &h->claims;

	if (!claim)
		return;
	pthread_mutex_lock(&h->table_lock);
	while (*link != claim)
		link = &(*link)->next;
	*link = claim->next;
	pthread_mutex_unlock(&h->table_lock);
	free(claim);
}

static int alloc_state(struct hgm_region *r)
{
	int rc = hgm_map_create(&r->map, hgm_region_end(r));

	if (!rc && r->head)
		hgm_map_leave_out(r->map, hgm_region_first(r));
	r->block_full_leaves = calloc(r->blocks, sizeof(r->block_full_leaves[0]));
	if (!rc && !r->block_full_leaves)
		rc = -ENOMEM;
	if (!rc)
		rc = hgm_install_make(r);
	if (!rc)
		rc = hgm_collapse_make(r);
	if (!rc)
		rc = hgm_fill_make(r);
	if (!rc)
		rc = hgm_lost_init(r);
	if (rc)
		return hgm_fail(rc, "cannot allocate the state of %llu blocks: %s",
				(unsigned long long)r->blocks, hgm_errno_name(rc));
	if (r->copies || r->bounces)
		rc = hgm_requests_need_bounce(r->h);
	return rc ? hgm_fail(rc, "cannot allocate bounce buffers: %s", hgm_errno_name(rc)) : 0;
}

void hgm_region_free(struct hgm_region *r)
{
	hgm_map_destroy(r->map);
	hgm_fill_free(r);
	hgm_backing_free(r);
	hgm_lost_free(r);
	give_memory_back(r->h, r->claim);
	atomic_fetch_sub_explicit(&r->view.space->areas, r->view.areas, memory_order_relaxed);
	hgm_source_destroy(r->source);
	hgm_collapse_free(r);
	hgm_install_free(r);
	free(r->block_full_leaves);
	free(r);
}

/* Make a region of one kind of memory: registered, but not served yet. */
static int make(struct hgm_region **out, struct hgm *h, const struct hgm_choice *c,
		enum hgm_candidate candidate)
{
	const struct hgm_region_opts *o = c->opts;
	struct hgm_region *r = aligned_alloc(_Alignof(struct hgm_region), sizeof(*r));
	int rc;

	if (!r)
		return hgm_fail(-ENOMEM, "hgm_region_create: out of memory");
	memset(r, 0, sizeof(*r));
	r->h = h;
	r->view.space = hgm_peer_space(h, o);
	r->fd = r->seek_fd = -1;
	r->length = o->length;
	r->flags = o->flags;
	r->source = o->source;
	r->source_offset = o->source_offset;
	hgm_source_hold(r->source);
	atomic_init(&r->open_pages, hgm_region_pages(r));
	atomic_init(&r->event_due, true);
	atomic_init(&r->deferred, o->flags & HGM_REGION_DEFER_COLLAPSE);

	rc = hgm_backing_make(r, o, candidate, &c->kind);
	if (!rc && r->fd < 0)
		hgm_memory_open(r); /* only snapshots need it, and they report a failure */
	if (!rc)
		rc = alloc_state(r);
	if (!rc)
		rc = hgm_prepare(r);
	if (!rc) {
		hgm_region_stripe_up(r);
		hgm_region_describe(r, o->backing, c->refused);
		rc = hgm_events_watch_alias(r);
	}
	/*
	 * No other thread knows our own memory yet, so drop it before registration: a drop of
	 * registered memory raises an event.
	 */
	if (!rc && !r->callers_mapping)
		rc = hgm_backing_drop_mapped(r);
	if (!rc) {
		rc = hgm_region_register(r);
	}
	if (rc) {
		hgm_region_free(r);
		return rc;
	}
	rc = r->callers_mapping && !hgm_region_foreign(r) ? hgm_backing_drop_mapped(r) : 0;
	if (rc) {
		hgm_region_unregister(r, r->mapped);
		hgm_region_free(r);
		return rc;
	}
	if (r->collapses)
		hgm_collapse_choose_verify(r);
	*out = r;
	return 0;
}

int hgm_region_create(struct hgm_region **out, struct hgm *h, const struct hgm_region_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_region_opts o;
	struct hgm_region *r = NULL;
	struct hgm_claim *claim = NULL;
	struct hgm_choice choice;
	enum hgm_candidate candidate;
	int rc;

	if (!out || !h || !opts)
		return hgm_fail(-EINVAL, "hgm_region_create: %s is NULL",
				!out ? "out"
				: !h ? "the engine"
				     : "opts (length and source are required)");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_region_opts, peer), opts,
			 "hgm_region_create");
	if (!rc)
		rc = check_opts(&o);
	if (!rc)
		rc = hgm_peer_check(h, &o);
	if (!rc)
		rc = hgm_choice_begin(&choice, &h->abilities, &o);
	if (!rc)
		rc = claim_memory(&claim, h, &choice);
	if (rc)
		return rc;
	while (!r) {
		rc = hgm_choice_next(&choice, &candidate);
		if (rc) {
			give_memory_back(h, claim);
			return rc;
		}
		rc = make(&r, h, &choice, candidate);
		if (rc)
			hgm_choice_failed(&choice, candidate, rc);
	}
	/*
	 * Earlier events do not concern the region: the event of the drop, and events of what was
	 * here before.
	 */
	hgm_events_settle(h, r->view.space);
	if (r->fd >= 0)
		hgm_suspects_look(r);
	r->claim = claim;
	rc = hgm_table_add(h, r);
	if (rc) {
		hgm_region_unregister(r, r->mapped);
		hgm_region_free(r);
		return hgm_fail(rc, "hgm_region_create: an engine has at most %d regions",
				HGM_REGIONS_MAX);
	}
	hgm_space_served(r->view.space);
	/* seq_cst: the fault thread sees the region in the table, or this thread sees the mark. */
	if (atomic_load_explicit(&r->view.space->gone, memory_order_seq_cst))
		hgm_region_lost_all(r);
	/* Faults on a caller's mapping were ignored until the region was in the table. */
	hgm_region_wake_all(r);
	hgm_work_add_region(r);
	hgm_log(&h->log, HGM_LOG_INFO, "region of %llu KiB at %p: %s",
		(unsigned long long)r->length >> 10, (void *)r->view.start, r->sentence);
	*out = r;
	return 0;
}
