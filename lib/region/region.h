/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct hgm_region: the fields that all modules may use, and the functions of this module.
 */
#ifndef HGM_LIB_REGION_H
#define HGM_LIB_REGION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include <hgm/region.h>

#include "caps/choice.h"
#include "map/map.h"
#include "util/bits.h"
#include "util/file_id.h"
#include "util/line.h"
#include "view.h"

/* Memory that belongs, or will belong, to a region, and must not belong to another one. */
struct hgm_claim {
	const struct hgm_source *source;
	const struct hgm_space *space;
	uint64_t addr; /* the caller's mapping, or 0 */
	uint64_t length;
	bool has_file; /* the caller's file, identified by the next fields */
	dev_t device;
	uint64_t inode;
	uint64_t offset;
	struct hgm_claim *next;
};

struct hgm;
struct hgm_install;
struct hgm_collapse;
struct hgm_fill;

struct hgm_region {
	struct hgm *h;
	struct hgm_claim *claim;
	struct hgm_view view;
	char *alias;	    /* page 0, like view.base. NULL: anonymous memory has none */
	int fd;		    /* our own descriptor of the backing, -1 for anon */
	const void *zeroes; /* a page, for hugetlb a block */
	int seek_fd;	    /* has its own file offset, for SEEK_HOLE; -1: none */
	uint64_t fd_offset; /* of the region's first byte */
	struct hgm_file_id file;
	uint64_t head;	 /* bytes from page 0 to the region's first byte: margins.c */
	uint64_t length; /* as asked for */
	uint64_t mapped; /* from page 0 to the end; our own memory is rounded up to the block */
	uint64_t block_bytes;
	uint64_t map_bytes;
	uint64_t unit_bytes; /* what the kernel drops as a whole: a page, a huge page of hugetlb */
	uint32_t backing;    /* the actual type */
	uint32_t flags;
	bool callers_mapping;
	bool copies;		/* pages are installed by COPY, not CONTINUE */
	bool may_shrink;	/* the caller's file, which can be truncated */
	bool bounces;		/* system calls copy contents into the alias: shrunk.c */
	bool zeroed;		/* the alias was all zero when it was made */
	_Atomic bool scribbled; /* it may now hold any bytes where contents are missing */
	bool holds_contents;	/* the caller's file, which may hold older contents */
	bool collapses;
	bool native;	 /* hugetlb with high-granularity mapping: the primary is split */
	bool can_poison; /* page by page */
	bool fits_file;	 /* blocks begin at a multiple of the block in the file, too */
	uint64_t blocks;
	uint64_t whole_first; /* the blocks [whole_first, whole_end) can become huge */
	uint64_t whole_end;
	uint64_t wp_bytes; /* unit of write-protection */

	struct hgm_map *map;
	struct hgm_source *source;
	uint64_t source_offset; /* of the region's first byte */

	/* The state of other modules for this region. Each module uses only its own. */
	struct hgm_install *install;
	struct hgm_collapse *collapse;
	struct hgm_fill *fill;

	_Atomic bool dying;

	/*
	 * Each fault changes refs, so these have cache lines of their own. Destruction waits until
	 * both are 0.
	 */
	_Alignas(64) _Atomic uint64_t refs; /* requests and queue entries in progress */
	_Atomic uint64_t pins;		    /* pins: hgm_region_pin() */

	/* Progress. A region is complete when both are 0. */
	_Alignas(64) _Atomic uint64_t open_pages; /* neither present nor poisoned */
	_Atomic uint64_t unsettled; /* undecided full blocks, and pages being given up */

	/* Without fill: the region's completion must be reported. */
	_Alignas(64) _Atomic bool event_due;
	_Atomic bool deferred;		     /* full blocks must not be collapsed yet */
	_Atomic uint32_t *block_full_leaves; /* blocks larger than a leaf */
	_Atomic int last_collapse_error;
	uint64_t prepared_blocks;

	_Atomic unsigned int prefetch_count; /* ranges that wait to be fetched */

	char sentence[1024];
};

HGM_WHOLE_LINES(struct hgm_region);
HGM_OWN_LINES(struct hgm_region, refs, open_pages);
HGM_OWN_LINES(struct hgm_region, open_pages, event_due);

/*
 * Functions of the collapser and the pager, for the modules region and install, which must not
 * include their headers. engine.c fills in the table.
 */
struct hgm_region_ops {
	/* All pages of the region are counted off. */
	void (*arrived)(struct hgm_region *r);
	/* Each page of a block is present, and installed if whole blocks are installed. */
	void (*filled)(struct hgm_region *r, uint64_t block);
	/*
	 * Fill has brought pages of a block. True: the collapse will map them. map_left(): it will
	 * not happen.
	 */
	bool (*leave)(struct hgm_region *r, uint64_t block);
	void (*map_left)(struct hgm_region *r, uint64_t block);
	/* A page of a block is to be mapped; it has been. state() returns @before. */
	uint8_t (*state)(const struct hgm_region *r, uint64_t block);
	void (*touched)(struct hgm_region *r, uint64_t block, uint8_t before);
	/* Memory of these pages is about to be dropped. */
	void (*discarded)(struct hgm_region *r, uint64_t page, uint64_t pages, bool may_wait);
	/* Wait until every event of @space that was read before has been handled. */
	void (*settle_events)(struct hgm *h, struct hgm_space *space);
	/* No thread waits for the block any more. */
	void (*not_urgent)(struct hgm_region *r, uint64_t block);
};

/*
 * Destruction of a region waits while a thread holds a reference to it or pins it. Requests and
 * queue entries hold references. Without fill, a region is complete only when it has no references.
 * A pin does not count as work in progress.
 */
void hgm_region_ref(struct hgm_region *r);
void hgm_region_unref(struct hgm_region *r);
void hgm_region_pin(struct hgm_region *r);
void hgm_region_unpin(struct hgm_region *r);

/*
 * Wait until no thread holds a reference to regions of one engine, or pins them. The regions are in
 * no table any more. Calls @cancel for each of them repeatedly until then.
 */
void hgm_regions_wait_refs(struct hgm_region **r, unsigned int count,
			   void (*cancel)(struct hgm_region *));

/* The region is in no table any more, so the remaining ones may be complete. */
void hgm_region_gone(struct hgm_region *r);
/*
 * hgm_region_unsettle(): the region is not complete yet, although all its pages may be counted off.
 * hgm_region_settled(): the reason for this has ended.
 */
void hgm_region_unsettle(struct hgm_region *r);
void hgm_region_settled(struct hgm_region *r);

/* Make the threads that wait in hgm_wait() look again. */
void hgm_something_is_done(struct hgm *h);

/* Signal something that hgm_event_fd() reports. */
void hgm_notify(struct hgm *h);

/*
 * Is the region complete? If not, the caller must be notified when it becomes complete.
 * hgm_all_complete(): are all regions of an engine (struct hgm *) complete?
 */
bool hgm_region_looks_complete(struct hgm_region *r);
bool hgm_all_complete(void *h);

/* Wait until @done(@arg) is true or the deadline has passed. False: it has passed. */
bool hgm_wait_for(struct hgm *h, bool (*done)(void *), void *arg, uint64_t deadline_ns);

/* Pages are done for good. Call it after their block was reported as filled. */
void hgm_region_count_off(struct hgm_region *r, uint64_t pages);

/* Wake all threads that wait for one of these pages, or for a block that contains one. */
void hgm_region_wake(struct hgm_region *r, uint64_t page, uint64_t pages);

/* Make each thread that waits for a page of the region look again. */
void hgm_region_wake_all(struct hgm_region *r);

int hgm_lost_init(struct hgm_region *r);
void hgm_lost_free(struct hgm_region *r);
/* Pages [page, end) do not belong to the region any more. */
void hgm_lost_mark(struct hgm_region *r, uint64_t page, uint64_t end);
bool hgm_lost_page(const struct hgm_region *r, uint64_t page);

/*
 * The next run of bytes in [at, end) that belongs to the region, and still does; *len 0: there is
 * none.
 */
uint64_t hgm_lost_next(const struct hgm_region *r, uint64_t at, uint64_t end, uint64_t *len);

/* Runs of @len bytes at @at in [@from, @to) that still belong to the region. */
#define for_each_kept(r, from, to, at, len)                                      \
	for (uint64_t len, at = hgm_lost_next((r), (from), (to), &(len)); (len); \
	     at = hgm_lost_next((r), (at) + (len), (to), &(len)))

/* Distribute a region over the stripes of its engine. */
void hgm_region_stripe_up(struct hgm_region *r);

/* How many pages the region has, the first of them, and the end of the last one. */
static inline uint64_t hgm_region_pages(const struct hgm_region *r)
{
	return r->length >> HGM_PAGE_SHIFT;
}

static inline uint64_t hgm_region_first(const struct hgm_region *r)
{
	return r->head >> HGM_PAGE_SHIFT;
}

static inline uint64_t hgm_region_end(const struct hgm_region *r)
{
	return (r->head + r->length) >> HGM_PAGE_SHIFT;
}

/* The pages of a word that the region has. The word is not beyond its end. */
static inline uint64_t hgm_region_word(const struct hgm_region *r, uint64_t word)
{
	uint64_t first = hgm_region_first(r), at = word * HGM_PAGES_PER_WORD;

	return hgm_bits_low(hgm_region_end(r) - at) & ~hgm_bits_low(first > at ? first - at : 0);
}

/* The page of an offset that the caller gave, and the offset of a page for the caller. */
static inline uint64_t hgm_region_page_at(const struct hgm_region *r, uint64_t offset)
{
	return (r->head + offset) >> HGM_PAGE_SHIFT;
}

static inline uint64_t hgm_region_offset_of(const struct hgm_region *r, uint64_t page)
{
	return (page << HGM_PAGE_SHIFT) - r->head;
}

/* The offset of a page in the source, and in the file. */
static inline uint64_t hgm_region_source_at(const struct hgm_region *r, uint64_t page)
{
	return r->source_offset + hgm_region_offset_of(r, page);
}

static inline uint64_t hgm_region_file_at(const struct hgm_region *r, uint64_t page)
{
	return r->fd_offset + hgm_region_offset_of(r, page);
}

/* The alias without the margin, and the bytes that it and the primary have. */
static inline char *hgm_region_alias_start(const struct hgm_region *r)
{
	return r->alias + r->head;
}

static inline uint64_t hgm_region_mapped(const struct hgm_region *r)
{
	return r->mapped - r->head;
}

/* Is it memory of another process? */
static inline bool hgm_region_foreign(const struct hgm_region *r)
{
	return r->view.space->foreign;
}

static inline void *hgm_region_at(const struct hgm_region *r, uint64_t page)
{
	return hgm_view_at(&r->view, page);
}

/* The length of the stripe that begins at byte @at. */
static inline uint64_t hgm_region_stripe_length(const struct hgm_region *r, uint64_t at)
{
	return r->mapped - at < r->view.stripe_bytes ? r->mapped - at : r->view.stripe_bytes;
}

static inline uint64_t hgm_region_block(const struct hgm_region *r, uint64_t page)
{
	return (page << HGM_PAGE_SHIFT) / r->block_bytes;
}

/* The bytes [*from, *to) of a block that are mapped, from page 0 on. */
static inline void hgm_region_block_span(const struct hgm_region *r, uint64_t block, uint64_t *from,
					 uint64_t *to)
{
	*from = block ? block * r->block_bytes : r->head;
	*to = (block + 1) * r->block_bytes;
	*to = *to < r->mapped ? *to : r->mapped;
}

/* Can the block become huge? */
static inline bool hgm_region_block_whole(const struct hgm_region *r, uint64_t block)
{
	return block >= r->whole_first && block < r->whole_end;
}

/* All pages of a block that the region has have arrived. */
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
 * backing.c: make the memory of a region from its options and the chosen candidate. @kind is the
 * kind of a caller's file, as hgm_memory_kind() returned it. -errno with text: nothing is left
 * behind.
 */
int hgm_backing_make(struct hgm_region *r, const struct hgm_region_opts *opts,
		     enum hgm_candidate candidate, const struct hgm_memory_kind *kind);
void hgm_backing_free(struct hgm_region *r);
int hgm_backing_drop_mapped(struct hgm_region *r);

/*
 * margins.c: find where the region begins and ends in its blocks, and which of these can become
 * huge. -EINVAL with text: the caller's address is not aligned.
 */
int hgm_margins_find(struct hgm_region *r, const struct hgm_region_opts *opts);

/*
 * mapping.c: is [addr, addr + len) mapped from this file and offset (fd -1: private anonymous)?
 * -errno with text: it is not. hgm_mapping_none(): is nothing mapped at a page? @pid: of which
 * process; 0: this one.
 */
bool hgm_mapping_none(int pid, const void *page);
int hgm_mapping_check(int pid, const void *addr, uint64_t len, int fd, uint64_t offset);

/*
 * shrunk.c: is a page beyond the end of its file, which was truncated? Such a page raises SIGBUS,
 * with or without poison.
 */
bool hgm_shrunk(const struct hgm_region *r, uint64_t page);

/*
 * What COPY or ZEROPAGE of @page ended with. Beyond the end of the file this is -EFAULT, also where
 * the kernel says -ENOMEM (7.3), for which there would be no use to wait.
 */
int hgm_shrunk_outcome(const struct hgm_region *r, uint64_t page, int rc);

/* Copy into the alias without dying of SIGBUS. Returns the bytes in whole pages, or -errno. */
int64_t hgm_shrunk_copy(const struct hgm_region *r, void *to, const void *from, uint64_t bytes);

/* The same for pages of the alias. @buf NULL: zeroes. Returns the pages written, or -errno. */
int64_t hgm_shrunk_write(const struct hgm_region *r, uint64_t page, uint64_t pages,
			 const void *buf);

/* prepare.c: put every block into the page cache, huge where possible; -errno with text. */
int hgm_prepare(struct hgm_region *r);

/*
 * view.c. hgm_region_unregister() unregisters the region up to byte @upto from the userfaultfds of
 * its stripes. hgm_region_unregister_from() unregisters the whole region from @u.
 */
void hgm_region_unregister(struct hgm_region *r, uint64_t upto);
void hgm_region_unregister_from(struct hgm_region *r, struct hgm_uffd *u);

/*
 * Register the region with the engine, without write-protection. -errno with text: nothing is
 * registered.
 */
int hgm_region_register(struct hgm_region *r);

/*
 * Register with @u those parts of [@from, @to) that still belong to the region. *ioctls: the ioctls
 * that the kernel offers on all of them.
 */
int hgm_region_register_kept(struct hgm_region *r, struct hgm_uffd *u, uint64_t from, uint64_t to,
			     uint64_t modes, uint64_t *ioctls);
#endif
