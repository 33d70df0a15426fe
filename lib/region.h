/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_REGION_H
#define HGM_LIB_REGION_H

#include <stdatomic.h>
#include <stdbool.h>

#include <hgm/region.h>

#include "around.h"
#include "guard.h"
#include "hugepage.h"
#include "ladder.h"
#include "map.h"
#include "section.h"

/*
 * What a block is, beyond its pages' states: one byte, changed by compare-and-swap. Settled blocks
 * are those that hgm_wait() need not wait for any more.
 */
enum hgm_block_state {
	HGM_BLOCK_OPEN = 0,   /* not full yet */
	HGM_BLOCK_WAITING,    /* full, to be collapsed */
	HGM_BLOCK_COLLAPSING, /* the collapser is at it */
	HGM_BLOCK_TOUCHED,    /* the same, and a page has been mapped: perhaps afterwards */
	HGM_BLOCK_HUGE,	      /* settled: mapped huge when last looked at */
	HGM_BLOCK_SPLIT,      /* settled: left split */
	HGM_BLOCK_FELL_APART, /* settled before: was huge, is to be collapsed again */
	HGM_BLOCK_POISONED,   /* settled: holds poison; whole-block regions only */
	HGM_BLOCK_DEFERRED,   /* full, not to be collapsed yet */
	HGM_BLOCK_UNVERIFIED, /* collapsed, by the kernel's word; smaps has not been read yet */
	HGM_BLOCK_UNVERIFIED_AGAIN, /* settled before: as HGM_BLOCK_UNVERIFIED */
};

/* How a collapse is verified. */
enum hgm_verify {
	HGM_VERIFY_NOT,	    /* the kernel shows nothing: its return code is believed */
	HGM_VERIFY_PAGEMAP, /* block by block, by PAGE_IS_HUGE */
	HGM_VERIFY_SMAPS,   /* all blocks of the region at a time, by the counters of smaps */
};

struct hgm_prefetch {
	uint64_t first_page;
	uint64_t pages;
};

#define HGM_PREFETCH_MAX 4096

struct hgm_region {
	struct hgm *h;
	char *primary;
	char *alias; /* NULL: contents are copied in by UFFDIO_COPY */
	int fd;	     /* our own descriptor of the backing, -1 for anon */
	uint64_t fd_offset;
	uint64_t length; /* as asked for */
	uint64_t mapped; /* rounded up to the block */
	uint64_t block_bytes;
	uint64_t map_bytes;
	uint64_t stripe_bytes;
	uint32_t backing; /* what it really is */
	uint32_t flags;
	bool callers_mapping;
	bool copies;	     /* pages are installed by COPY, not CONTINUE */
	bool zeroed;	     /* the alias was all zero when it was made */
	bool holds_contents; /* the caller's file: may hold contents from before */
	bool collapses;
	bool native;	 /* hugetlb with high-granularity mapping: the primary is split */
	bool can_poison; /* page by page */
	enum hgm_verify verify;
	uint64_t modes; /* registered */
	uint64_t blocks;

	struct hgm_map *map;
	struct hgm_source *source;
	uint64_t source_offset;

	/* Destruction waits until both are 0. */
	_Atomic uint64_t refs;	 /* requests and queue entries: work that is under way */
	_Atomic uint64_t visits; /* the collapser looks at it */
	_Atomic bool dying;

	/* Progress. A region is complete when both are 0. */
	_Atomic uint64_t open_pages; /* neither present nor poisoned */
	_Atomic uint64_t unsettled;  /* full blocks not yet decided, pages being given up */
	_Atomic bool complete;
	_Atomic bool deferred;		/* full blocks are not to be collapsed yet */
	_Atomic uint64_t refused_pages; /* arrived, but the kernel would not map them: poison */

	struct hgm_around around; /* faults on pages that are there */

	/* Blocks. */
	_Atomic uint8_t *block_state;
	_Atomic uint8_t *block_tries;
	_Atomic uint64_t *collapse_wanted;   /* bitmap */
	uint64_t *collapse_failed;	     /* bitmap, the collapser's own: to be tried again */
	uint64_t unverified_blocks;	     /* the collapser's own */
	uint64_t verify_at_ns;		     /* the collapser's own: not later than this */
	_Atomic uint32_t *block_full_leaves; /* blocks larger than a leaf */
	_Atomic uint64_t *block_unmapped;    /* bitmap: its pages are left to the collapse to map */
	_Atomic uint64_t *block_urgent;	     /* bitmap: somebody waits for the whole block */
	_Atomic uint64_t huge_blocks;
	_Atomic uint64_t left_split;
	_Atomic int last_collapse_error;
	uint64_t prepared_blocks;

	/* Fill, under the work queue's lock. */
	uint64_t fill_next; /* page */
	struct hgm_prefetch *prefetch;
	unsigned int prefetch_first;
	_Atomic unsigned int prefetch_count;
	struct hgm_region *fill_link; /* ring; NULL: not in it */

	/* Write-protection: guard.c */
	_Atomic(struct hgm_guard *) guard;
	_Atomic(void *) guard_user; /* what the guard keeps of this region */
	struct hgm_section section; /* who looks at the guard, and maps or collapses by it */
	_Atomic bool guard_all;	    /* install everything protected */
	_Atomic uint64_t *guarded;  /* bitmap of pages; these three come with the first guard */
	_Atomic uint64_t *held;	    /* bitmap of blocks: not to be collapsed */
	_Atomic uint64_t holds;	    /* how often that was added to */
	_Atomic(_Atomic uint64_t *) wp_registered; /* bitmap of blocks */
	uint64_t wp_bytes;			   /* unit of protection */
	int mem_fd; /* /proc/self/mem, where there is no alias to read by */

	char sentence[1024];
};

void hgm_region_hold(struct hgm_region *r);
void hgm_region_drop(struct hgm_region *r);
void hgm_region_visit(struct hgm_region *r);
void hgm_region_leave(struct hgm_region *r);

/* Wait until nobody holds a region that is in no table any more. */
void hgm_region_wait_refs(struct hgm_region *r);

/* Each page of a block is present, and installed if whole blocks are. */
void hgm_region_block_filled(struct hgm_region *r, uint64_t block);

/* Pages are dealt with for good: after their block was reported as filled. */
void hgm_region_count_off(struct hgm_region *r, uint64_t pages);

/* Everybody who waits for a page of it looks again. */
void hgm_region_wake_all(struct hgm_region *r);

/* Bytes that raise SIGBUS. */
uint64_t hgm_region_poisoned_bytes(const struct hgm_region *r);

/* Bytes that are mapped by huge leaves, as far as is known. */
uint64_t hgm_region_huge_bytes(const struct hgm_region *r);

/* The userfaultfd that serves a page; a block always has one. */
struct hgm_uffd *hgm_region_uffd(const struct hgm_region *r, uint64_t page);

static inline uint64_t hgm_region_pages(const struct hgm_region *r)
{
	return r->length >> HGM_PAGE_SHIFT;
}

static inline void *hgm_region_at(const struct hgm_region *r, uint64_t page)
{
	return r->primary + (page << HGM_PAGE_SHIFT);
}

/* The length of the stripe that begins at byte @at. */
static inline uint64_t hgm_region_stripe_length(const struct hgm_region *r, uint64_t at)
{
	return r->mapped - at < r->stripe_bytes ? r->mapped - at : r->stripe_bytes;
}

static inline uint64_t hgm_region_block(const struct hgm_region *r, uint64_t page)
{
	return (page << HGM_PAGE_SHIFT) / r->block_bytes;
}

/* All pages of a block have arrived. */
static inline bool hgm_region_block_present(const struct hgm_region *r, uint64_t block)
{
	return atomic_load_explicit(&r->block_full_leaves[block], memory_order_acquire) ==
	       r->block_bytes >> HGM_LEAF_SHIFT;
}

/* Nothing is installed before its whole block is present. */
static inline bool hgm_region_whole_blocks(const struct hgm_region *r)
{
	return r->map_bytes > HGM_PAGE_BYTES;
}

/*
 * backing.c: memory of a region, of the rung that was chosen, from options; @kind of a caller's
 * file, as hgm_backing_look() told. -errno with text, nothing left behind.
 */
int hgm_backing_make(struct hgm_region *r, const struct hgm_region_opts *opts, enum hgm_rung rung,
		     const struct hgm_memory_kind *kind);
void hgm_backing_free(struct hgm_region *r);
int hgm_backing_drop_mapped(struct hgm_region *r);

/* The caller's file: is it fit for a region, and what is it? -errno with text. */
int hgm_backing_look(const struct hgm_region_opts *opts, struct hgm_memory_kind *kind);

/* mapping.c: is [addr, addr + len) mapped from that file and offset (fd -1: private anonymous)? */
int hgm_mapping_check(const void *addr, uint64_t len, int fd, uint64_t offset);

/* prepare.c: have every block in the page cache, huge where it can be; -errno with text. */
int hgm_prepare(struct hgm_region *r);

/* region.c, for its end */
void hgm_region_unregister(struct hgm_region *r, uint64_t upto);

/* With the engine, and without write-protection; -errno with text: nothing of it is. */
int hgm_region_register(struct hgm_region *r);
void hgm_region_free(struct hgm_region *r);

/* region_info.c: may a bitmap stand for these of @all pages? -errno with text. */
int hgm_region_check_pages(uint64_t all, uint64_t first, uint64_t pages, const char *function);

/* region_info.c: the sentence; @refused says why it is nothing better, or is empty. */
void hgm_region_describe(struct hgm_region *r, uint32_t asked, const char *refused);

#endif
