/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: pages claimed for a region, on their way from its source into its memory.
 */
#ifndef HGM_LIB_REQUEST_H
#define HGM_LIB_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/source.h>

struct hgm_region;

#define HGM_REQUESTS	      1024 /* slots; more faults than that wait for one */
#define HGM_REQUESTS_FILL     512  /* of these, fill takes at most so many */
#define HGM_REQUEST_MAX_BYTES (UINT64_C(256) << 10)

enum hgm_request_step {
	HGM_STEP_ASK,	  /* the source is to be asked (again) */
	HGM_STEP_INSTALL, /* contents are there; the kernel put us off */
	HGM_STEP_POISON,  /* given up; the kernel put us off */
};

/* Contents that are wanted in a buffer and not in memory: hgm_request_peek(). */
struct hgm_peek {
	char *buf;
	uint64_t first_page;
	uint64_t pages;
	uint64_t unreadable_pages; /* the source failed for good: zeroes in the buffer */
	uint64_t settled_pages;	   /* fewer than @pages: given up, or the region is dying */
	void (*done)(struct hgm_peek *peek);
	_Atomic bool given_up;
	_Atomic(struct hgm_request *) req; /* ours until done() is called */
};

struct hgm_request {
	/* generation << 1 | asked: whoever clears "asked" of the right generation has the answer */
	_Atomic uint64_t ticket;
	_Atomic(struct hgm_region *) asked_for; /* for hgm_requests_cancel() */
	struct hgm_region *r;
	uint64_t first_page;
	uint64_t pages;
	/*
	 * INSTALL, POISON: what is left to do, in pages; a whole block where that is the
	 * granularity
	 */
	uint64_t install_page;
	uint64_t install_pages;
	uint64_t publish_page;	 /* COPY: first page that is not present yet */
	uint64_t settling_pages; /* counted off the region's open pages when all is done */
	enum hgm_request_step step;
	uint32_t attempt;
	bool demand;
	bool sequential; /* fill, in order: its block will soon be full */
	bool zero;
	bool scribbled; /* a failed try may have left anything in the buffer */
	bool filled_block;
	bool wake_later; /* on a fault thread: it wakes the waiters, once for a batch */
	bool piecewise;	 /* all tries failed: page by page, to give up only what is bad */
	uint64_t asked_ns;
	uint64_t answered_ns;
	uint64_t delivered_before; /* for the window: bytes delivered when it was asked */
	uint64_t due_ns;
	uint32_t backoff_us; /* of the kernel's refusals */
	struct hgm_peek *peek;
	struct hgm_request *next;
	_Atomic uint32_t next_free;
};

struct hgm_request_list {
	struct hgm_request *first;
	struct hgm_request *last;
};

struct hgm_request_pool {
	struct hgm_request *slot;
	_Atomic uint64_t free; /* tag << 32 | index + 1 */
	_Atomic uint32_t fill_used;
	_Atomic(char *)
		bounce; /* HGM_REQUEST_MAX_BYTES per slot, made with the first region that copies */
};

struct hgm;

int hgm_requests_init(struct hgm *h);
void hgm_requests_destroy(struct hgm *h);

/* Before a region that copies is served. -ENOMEM. */
int hgm_requests_need_bounce(struct hgm *h);

/* A slot, holding its region; NULL if none is free. Lock-free. */
struct hgm_request *hgm_request_get(struct hgm_region *r, bool demand);
void hgm_request_put(struct hgm_request *req);

/* How many of its pages the source is asked for at a time. */
uint64_t hgm_request_asks(const struct hgm_request *req);

/* Where the source is to put a request's contents, or, of a memory source, where they lie. */
void *hgm_request_buffer(const struct hgm_request *req);

/*
 * Take the request's next step and those that follow without waiting. The request is not the
 * caller's any more. @may_sleep: false on fault threads, where a blocking source's request goes to
 * the workers instead, and so does the waking of waiters. @now_ns: the time, if the caller has just
 * looked, else 0. Returned is that of the last installation, if nothing that takes time came
 * behind, else 0.
 */
uint64_t hgm_request_run(struct hgm_request *req, bool may_sleep, uint64_t now_ns);

/*
 * Read pages from a region's source, at most HGM_REQUEST_MAX_BYTES, into @peek's buffer; its
 * function is called when they are there, from any thread. -EAGAIN: no slot.
 */
int hgm_request_peek(struct hgm_region *r, struct hgm_peek *peek);

/*
 * Before @peek's function was called: no more is wanted, it shall be called soon. True: the source
 * is at it, and is to be asked for haste by hgm_request_cancel(), which may be too late.
 */
bool hgm_request_give_up(struct hgm_peek *peek, uint64_t *id);
void hgm_request_cancel(struct hgm_region *r, uint64_t id);

/* Ask the sources of @r for haste: everything unanswered is cancelled. */
void hgm_requests_cancel(struct hgm_region *r);

#endif
