/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of a live snapshot:
 *
 *	snapshot.c		its life: begin, wait, cancel, progress, destroy
 *	snapshot_create.c	its creation: options, regions, pool, and write-protection
 *	snapshot_wp.c		what it does as the wp owner of its regions
 *	snapshot_pool.c		old contents, copied before a page is written to
 *	snapshot_thread.c	its thread
 *	snapshot_sweep.c	how the thread gives all pages to the sink
 *	snapshot_ahead.c	pages that have not arrived, read from their sources ahead of that
 *	snapshot_sink.c		where the bytes go, and how fast
 */
#ifndef HGM_LIB_SNAPSHOT_H
#define HGM_LIB_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/snapshot.h>

#include "install/wp.h"
#include "pager/read_through.h"

struct hgm_region;

/* A slot of the pool holds one page. */
struct hgm_slot {
	_Atomic uint32_t next; /* index + 1, 0: none */
	uint32_t part;
	uint64_t page;
};

struct hgm_pool {
	char *data;
	uint64_t bytes;
	struct hgm_slot *slot;
	uint32_t slots;
	_Atomic uint64_t free;	/* tag << 32 | index + 1 */
	_Atomic uint32_t ready; /* stack, newest first */
	_Atomic uint32_t used;
	/* HGM_SNAPSHOT_ORDERED: the thread's own index of slots by page, open addressing */
	uint32_t *index;
	uint32_t index_mask;
};

/* A region in a snapshot. */
struct hgm_part {
	struct hgm_snapshot *s;
	struct hgm_region *r;
	bool wp_begun; /* set after hgm_wp_begin() */
	uint32_t number;
	_Atomic uint64_t *saving;  /* bitmap of pages: a thread copies them, or has done so */
	uint64_t *armed;	   /* bitmap of pages: present at the instant */
	uint64_t *discarded;	   /* bitmap of pages: not present then, and zero */
	_Atomic uint64_t *holes;   /* bitmap of pages: not present then, and found to be zero */
	_Atomic uint64_t *dropped; /* bitmap of pages: dropped, as an event says, before a copy */
};

/* A word of the map whose absent pages are being read. */
struct hgm_ahead_word {
	struct hgm_read_through through;
	struct hgm_snapshot *s;
	struct hgm_part *part;
	uint64_t word;
	uint64_t unasked;      /* bitmap */
	unsigned int requests; /* in progress; under the snapshot's lock */
};

#define HGM_AHEAD_WORDS 64 /* 16 MiB */

/* What is read ahead of the sweep: words with absent pages, in the sweep's order. */
struct hgm_ahead {
	struct hgm_ahead_word word[HGM_AHEAD_WORDS]; /* a ring */
	char *buf;
	uint64_t first; /* a running number, not an index in the ring; so is end */
	uint64_t end;
	uint64_t asking; /* the first word with pages that are not requested yet */
	uint32_t part;	 /* this part and word enter the ring next */
	uint64_t next_word;
	uint64_t open_pages; /* requested, in progress; under the snapshot's lock */
};

enum hgm_snapshot_state {
	HGM_SNAPSHOT_PREPARED,
	HGM_SNAPSHOT_RUNNING,
	HGM_SNAPSHOT_ENDED,
};

struct hgm_snapshot {
	struct hgm_wp wp;
	struct hgm *h;
	struct hgm_snapshot_opts opts;
	bool stream; /* fd cannot seek: everything is written in order, zeroes too */
	bool is_file;
	uint64_t stale_bytes; /* old length of the file: zeroes below it are written, too */
	uint64_t stream_at;
	uint64_t length;       /* end of the last region */
	uint64_t mapped_bytes; /* of all regions */
	struct hgm_part *part;
	uint32_t parts;
	struct hgm_pool pool;

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* state */
	pthread_cond_t ahead_cond;
	enum hgm_snapshot_state state;
	bool begun;
	struct hgm_ahead ahead;
	_Atomic int error;
	uint64_t rate_due_ns; /* the thread's own: until then the sweep gives the sink nothing */
	bool unowned;	      /* the thread's own: destroyed from inside the sink */

	_Atomic uint64_t done_pages, zero_pages, copied_pages, source_pages, unreadable_pages;
	_Atomic int read_error; /* why the last unreadable page could not be read from memory */
	_Atomic uint64_t pool_full;
	uint64_t total_pages;
	_Atomic uint64_t begin_ns;
};

int hgm_pool_make(struct hgm_pool *p, uint64_t bytes, bool ordered);
void hgm_pool_free(struct hgm_pool *p);
/* The number of a free slot, or -1. Lock-free; any thread. */
int64_t hgm_pool_get(struct hgm_pool *p);
void hgm_pool_put(struct hgm_pool *p, uint32_t slot);
/* The slot is filled: hand it to the snapshot's thread. Lock-free; any thread. */
void hgm_pool_ready(struct hgm_pool *p, uint32_t slot);
/* Take all slots that are ready, oldest first. Returns the first number + 1; follow slot.next. */
uint32_t hgm_pool_take_ready(struct hgm_pool *p);
void *hgm_pool_page(const struct hgm_pool *p, uint32_t slot);
/* The index by page. hgm_pool_find() takes the slot out of it; -1: there is none. */
void hgm_pool_index(struct hgm_pool *p, uint32_t slot);
int64_t hgm_pool_find(struct hgm_pool *p, uint32_t part, uint64_t page);

extern const struct hgm_wp_ops hgm_snapshot_wp_ops;

/* Give contents at the instant to the sink. Pages of zeroes are detected and left out. -errno. */
int hgm_sink_pages(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		   uint64_t pages, const char *buf);
bool hgm_sink_is_zero(const void *page);
int hgm_sink_begin(struct hgm_snapshot *s);
int hgm_sink_finish(struct hgm_snapshot *s);

void *hgm_snapshot_thread(void *arg);

/* At most so many pages are copied at a time; fewer where a page is the unit of protection. */
#define HGM_SWEEP_PAGES HGM_LEAF_PAGES

/* The snapshot's thread only, as the functions below. */
struct hgm_sweep {
	struct hgm_snapshot *s;
	char *buf; /* HGM_SWEEP_PAGES */
};

/* Give the contents of a block at the instant to the sink. */
void hgm_sweep_block(struct hgm_sweep *sw, struct hgm_part *part, uint64_t block);

/* Give what was copied before writes to the sink, or put it into the index until its turn. */
void hgm_snapshot_drain(struct hgm_snapshot *s);

/* Fail if the region is being destroyed: that thread waits for this one. */
void hgm_snapshot_check_alive(const struct hgm_part *part);

void hgm_snapshot_free(struct hgm_snapshot *s);

/* The pages of a word that were not in memory at the instant and must come from the source. */
uint64_t hgm_snapshot_absent(const struct hgm_part *part, uint64_t word);

/*
 * The snapshot's thread only. Allocate memory to read into, or -errno; free it when no request is
 * in progress any more.
 */
int hgm_ahead_begin(struct hgm_snapshot *s);
void hgm_ahead_end(struct hgm_snapshot *s);

/* Request as much as the source should have at a time. */
void hgm_ahead_ask(struct hgm_snapshot *s);

/*
 * The next word with absent pages, which the sweep has reached; are its requests done; wait until
 * something changes.
 */
struct hgm_ahead_word *hgm_ahead_first(struct hgm_snapshot *s);
bool hgm_ahead_done(struct hgm_snapshot *s, const struct hgm_ahead_word *w);
void hgm_ahead_wait(struct hgm_snapshot *s);
/* The sweep is done with this word. */
void hgm_ahead_next(struct hgm_snapshot *s);

/* The snapshot has failed: cancel all requests. Waits for sources that are being asked. */
void hgm_ahead_give_up(struct hgm_snapshot *s);

static inline bool hgm_snapshot_failed(const struct hgm_snapshot *s)
{
	return atomic_load_explicit(&((struct hgm_snapshot *)s)->error, memory_order_acquire);
}

/*
 * Check that writing to @fd changes neither memory of the engine, nor a source from which the
 * memory is still restored. -EINVAL with text.
 */
int hgm_sink_check_file(struct hgm *h, int fd, const char *function);

/* Read up to 64 present pages. Pages that cannot be read are counted. Any thread. */
void hgm_snapshot_read(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		       uint64_t pages, void *buf);

/* The snapshot has failed. The first error is kept. */
void hgm_snapshot_fail(struct hgm_snapshot *s, int error);

/*
 * The two halves of hgm_snapshot_fail(), for a caller that holds a lock, and so must not call the
 * caller's log function yet. True: the error is the first one, and is to be logged.
 */
bool hgm_snapshot_set_error(struct hgm_snapshot *s, int error);
void hgm_snapshot_log_error(struct hgm *h, int error);

#endif
