/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: made, registered, served, ended.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bits.h"
#include "engine.h"
#include "error.h"
#include "opts.h"
#include "resolve.h"
#include "smaps.h"
#include "source.h"
#include "sys.h"

#define STRIPES_PER_REGION 64 /* each may cost a memory area; a process has 65530 of them */

struct hgm_uffd *hgm_region_uffd(const struct hgm_region *r, uint64_t page)
{
	return r->h->uffd[(page << HGM_PAGE_SHIFT) / r->stripe_bytes % r->h->stripes];
}

static int check_opts(const struct hgm_region_opts *o)
{
	const uint32_t flags = HGM_REGION_LAZY | HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE |
			       HGM_REGION_DEFER_COLLAPSE;
	const struct hgm_source *src = o->source;

	if (!src)
		return hgm_fail(-EINVAL, "hgm_region_create: no source; make one with "
					 "hgm_source_file(), _fd(), _memory() or _fn()");
	if (!o->length || o->length % HGM_PAGE_BYTES || o->length > INT64_MAX)
		return hgm_fail(-EINVAL,
				"hgm_region_create: length %llu is zero, no multiple of 4096,"
				" or too large",
				(unsigned long long)o->length);
	if (o->source_offset % HGM_PAGE_BYTES || o->source_offset > INT64_MAX - o->length)
		return hgm_fail(-EINVAL,
				"hgm_region_create: source_offset %llu is no multiple of 4096"
				", or too large",
				(unsigned long long)o->source_offset);
	if (src->length &&
	    (o->source_offset > src->length || o->length > src->length - o->source_offset))
		return hgm_fail(
			-EINVAL,
			"hgm_region_create: the source has %llu bytes, the region wants [%llu, "
			"+%llu); make the region shorter or the source longer",
			(unsigned long long)src->length, (unsigned long long)o->source_offset,
			(unsigned long long)o->length);
	if (o->backing > HGM_BACKING_MAPPING || o->flags & ~flags || o->reserved)
		return hgm_fail(-EINVAL,
				"hgm_region_create: unknown backing %u or flags 0x%x, or reserved "
				"is not 0",
				o->backing, o->flags);
	if (o->flags & HGM_REGION_LAZY && o->backing != HGM_BACKING_FD &&
	    o->backing != HGM_BACKING_MAPPING)
		return hgm_fail(-EINVAL,
				"hgm_region_create: HGM_REGION_LAZY goes with FD and MAPPING; "
				"otherwise say HGM_BACKING_SHMEM_LAZY");
	if (o->backing != HGM_BACKING_FD && o->backing != HGM_BACKING_MAPPING &&
	    (o->fd > 0 || o->fd_offset))
		return hgm_fail(-EINVAL, "hgm_region_create: fd and fd_offset go with "
					 "HGM_BACKING_FD and HGM_BACKING_MAPPING");
	if (o->backing != HGM_BACKING_MAPPING && o->addr)
		return hgm_fail(-EINVAL, "hgm_region_create: addr goes with HGM_BACKING_MAPPING");
	return 0;
}

static bool overlaps(const struct hgm_source *src, uint64_t start, uint64_t length)
{
	uint64_t from = (uintptr_t)src->memory;

	return from && from < start + length && from + src->length > start;
}

/*
 * The engine's threads must not read from memory that they serve: they would wait for themselves.
 * Nor can memory be served twice: the kernel would not mind one userfaultfd registering it again.
 */
static int check_overlaps(const struct hgm *h, const struct hgm_region_opts *o)
{
	uint64_t addr = (uintptr_t)o->addr; /* 0 unless the mapping is the caller's */
	bool served = addr && overlaps(o->source, addr, o->length);
	bool twice = false;
	struct hgm_table *t;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		const struct hgm_region *r = t->region[i];
		uint64_t at = (uintptr_t)r->primary;

		twice |= addr && addr < at + r->mapped && addr + o->length > at;
		served |= overlaps(o->source, (uintptr_t)r->primary, r->mapped) ||
			  (addr && overlaps(r->source, addr, o->length));
	}
	hgm_rcu_read_unlock();
	if (twice)
		return hgm_fail(-EBUSY,
				"hgm_region_create: a region of this engine has this memory");
	if (served)
		return hgm_fail(-EINVAL,
				"hgm_region_create: a memory source lies in a region of this "
				"engine, whose threads would wait for themselves");
	return 0;
}

static int alloc_state(struct hgm_region *r)
{
	uint64_t words = hgm_bits_words(r->blocks);

	r->block_state = calloc(r->blocks, sizeof(r->block_state[0]));
	r->block_tries = calloc(r->blocks, sizeof(r->block_tries[0]));
	r->collapse_wanted = calloc(words, sizeof(r->collapse_wanted[0]));
	r->collapse_failed = calloc(words, sizeof(r->collapse_failed[0]));
	r->block_unmapped = calloc(words, sizeof(r->block_unmapped[0]));
	r->block_urgent = calloc(words, sizeof(r->block_urgent[0]));
	r->block_full_leaves = calloc(r->blocks, sizeof(r->block_full_leaves[0]));
	r->prefetch = calloc(HGM_PREFETCH_MAX, sizeof(r->prefetch[0]));
	if (!r->block_state || !r->block_tries || !r->collapse_wanted || !r->collapse_failed ||
	    !r->block_unmapped || !r->block_urgent || !r->block_full_leaves || !r->prefetch ||
	    hgm_map_create(&r->map, hgm_region_pages(r)))
		return hgm_fail(-ENOMEM, "hgm_region_create: out of memory for %llu blocks' state",
				(unsigned long long)r->blocks);
	if (r->copies && hgm_requests_need_bounce(r->h))
		return hgm_fail(-ENOMEM, "hgm_region_create: out of memory for bounce buffers");
	return 0;
}

void hgm_region_free(struct hgm_region *r)
{
	hgm_map_destroy(r->map);
	hgm_backing_free(r);
	hgm_source_destroy(r->source);
	free(r->block_state);
	free(r->block_tries);
	free(r->collapse_wanted);
	free(r->collapse_failed);
	free(r->block_unmapped);
	free(r->block_urgent);
	free(r->block_full_leaves);
	free(r->prefetch);
	hgm_guard_free(r);
	free(r);
}

void hgm_region_count_off(struct hgm_region *r, uint64_t pages)
{
	bool last = atomic_fetch_sub_explicit(&r->open_pages, pages, memory_order_seq_cst) == pages;

	/* Now is the time to verify: see collapse_verify.c. */
	if (last && r->verify == HGM_VERIFY_SMAPS)
		hgm_collapser_kick(r->h);
	hgm_region_check_complete(r);
}

void hgm_region_block_filled(struct hgm_region *r, uint64_t block)
{
	if (r->collapses)
		hgm_collapse_want(r, block);
	else if (hgm_region_whole_blocks(r))
		atomic_fetch_add_explicit(&r->huge_blocks, 1, memory_order_relaxed);
}

static void stripe(struct hgm_region *r)
{
	uint64_t blocks = (r->blocks + STRIPES_PER_REGION - 1) / STRIPES_PER_REGION;

	r->stripe_bytes = blocks * r->block_bytes;
	if (r->h->stripes == 1)
		r->stripe_bytes = r->blocks * r->block_bytes;
}

void hgm_region_wake_all(struct hgm_region *r)
{
	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes)
		hgm_resolve_wake(r, at >> HGM_PAGE_SHIFT,
				 hgm_region_stripe_length(r, at) >> HGM_PAGE_SHIFT);
}

void hgm_region_unregister(struct hgm_region *r, uint64_t upto)
{
	for (uint64_t at = 0; at < upto; at += r->stripe_bytes) {
		uint64_t len = upto - at < r->stripe_bytes ? upto - at : r->stripe_bytes;

		hgm_uffd_unregister(hgm_region_uffd(r, at >> HGM_PAGE_SHIFT), r->primary + at, len);
	}
}

int hgm_region_register(struct hgm_region *r)
{
	uint64_t needed = r->copies ? HGM_UFFD_IOCTL_COPY : HGM_UFFD_IOCTL_CONTINUE;

	for (uint64_t at = 0; at < r->mapped; at += r->stripe_bytes) {
		uint64_t len = hgm_region_stripe_length(r, at);
		uint64_t ioctls;
		int rc = hgm_uffd_register(hgm_region_uffd(r, at >> HGM_PAGE_SHIFT),
					   r->primary + at, len, r->modes, &ioctls);

		if (!rc && !(ioctls & needed)) {
			rc = hgm_fail(-EOPNOTSUPP,
				      "userfaultfd offers no %s on this memory (ioctls 0x%llx)",
				      r->copies ? "UFFDIO_COPY" : "UFFDIO_CONTINUE",
				      (unsigned long long)ioctls);
			at += len;
		}
		if (rc) {
			hgm_region_unregister(r, at);
			return rc;
		}
	}
	return 0;
}

/* How can a collapse be verified here? */
static enum hgm_verify verify_by(const struct hgm_region *r)
{
	struct hgm_smaps smaps;

	/* What PAGE_IS_HUGE says of hugetlb memory, it says of its smallest pieces too. */
	if (r->h->collapser.pagemap >= 0 && !r->native)
		return HGM_VERIFY_PAGEMAP;
	if (!hgm_smaps_sum(r->primary, r->mapped, &smaps) &&
	    (!r->native || smaps.has_leaf_counters))
		return HGM_VERIFY_SMAPS;
	return r->h->collapser.pagemap >= 0 ? HGM_VERIFY_PAGEMAP : HGM_VERIFY_NOT;
}

/* A region of one kind of memory: registered, not served yet. */
static int make(struct hgm_region **out, const struct hgm_ladder *l, enum hgm_rung rung)
{
	const struct hgm_region_opts *o = l->opts;
	struct hgm_region *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return hgm_fail(-ENOMEM, "hgm_region_create: out of memory");
	r->h = l->h;
	r->fd = r->mem_fd = -1;
	r->length = o->length;
	r->flags = o->flags;
	r->source = o->source;
	r->source_offset = o->source_offset;
	hgm_source_hold(r->source);
	atomic_init(&r->open_pages, hgm_region_pages(r));
	atomic_init(&r->deferred, o->flags & HGM_REGION_DEFER_COLLAPSE);

	rc = hgm_backing_make(r, o, rung, &l->kind);
	if (!rc)
		rc = alloc_state(r);
	if (!rc)
		rc = hgm_prepare(r);
	if (!rc) {
		stripe(r);
		hgm_region_describe(r, o->backing, l->refused);
		rc = hgm_region_register(r);
	}
	if (rc) {
		hgm_region_free(r);
		return rc;
	}
	rc = hgm_backing_drop_mapped(r);
	if (rc) {
		hgm_region_unregister(r, r->mapped);
		hgm_region_free(r);
		return rc;
	}
	if (r->collapses)
		r->verify = verify_by(r);
	*out = r;
	return 0;
}

int hgm_region_create(struct hgm_region **out, struct hgm *h, const struct hgm_region_opts *opts)
{
	struct hgm_region_opts o;
	struct hgm_region *r = NULL;
	struct hgm_ladder ladder;
	enum hgm_rung rung;
	int rc;

	if (!out || !h || !opts)
		return hgm_fail(-EINVAL, "hgm_region_create: %s is NULL",
				!out ? "out"
				: !h ? "the engine"
				     : "opts (length and source are required)");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_region_opts, avoid), opts,
			 "hgm_region_create");
	if (!rc)
		rc = check_opts(&o);
	if (!rc)
		rc = check_overlaps(h, &o);
	if (!rc)
		rc = hgm_ladder_begin(&ladder, h, &o);
	if (rc)
		return rc;
	while (!r) {
		rc = hgm_ladder_next(&ladder, &rung);
		if (rc)
			return rc;
		rc = make(&r, &ladder, rung);
		if (rc)
			hgm_ladder_failed(&ladder, rung, rc);
	}
	rc = hgm_table_add(h, r);
	if (rc) {
		hgm_region_unregister(r, r->mapped);
		hgm_region_free(r);
		return hgm_fail(rc, "hgm_region_create: an engine has at most %d regions",
				HGM_REGIONS_MAX);
	}
	/* Faults of a caller's mapping that came before the table knew it were passed over. */
	hgm_region_wake_all(r);
	hgm_work_add_region(r);
	hgm_log(h, HGM_LOG_INFO, "region of %llu KiB at %p: %s",
		(unsigned long long)r->length >> 10, (void *)r->primary, r->sentence);
	*out = r;
	return 0;
}
