/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: claimed pages of a region, on their way from its source into its memory.
 */
#ifndef HGM_LIB_REQUEST_H
#define HGM_LIB_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/source.h>

#include "install/resolve.h"
#include "pager.h"
#include "read_through.h"
#include "util/line.h"
#include "util/page.h"

struct hgm_region;

#define HGM_REQUESTS	      1024 /* slots; further faults wait for a free one */
#define HGM_REQUESTS_FILL     512  /* at most this many of them are used by fill */
#define HGM_REQUEST_MAX_BYTES (UINT64_C(256) << 10)

enum hgm_request_step {
	HGM_STEP_ASK,	   /* ask the source (again) */
	HGM_STEP_CONTENTS, /* contents are in the buffer */
	HGM_STEP_INSTALL,  /* contents are there; the kernel refused to install them for now */
	HGM_STEP_POISON,   /* given up; the kernel refused to poison for now */
};

struct hgm_request {
	/*
	 * generation << 2 | raising | asked. The thread that clears "asked" of the right generation
	 * has the answer. It waits while another thread is raising.
	 */
	_Alignas(64) _Atomic uint64_t ticket;
	/*
	 * Valid while "asked" is set: the region; first page << 8 | pages for fill, else 0.
	 */
	_Atomic(struct hgm_region *) asked_for;
	_Atomic uint64_t asked_fill;
	/*
	 * Bitmap of @pages: those that demand has taken over. Accessed by the thread that raises or
	 * that has the answer.
	 */
	uint64_t taken;
	bool hurried; /* the source has been told to hurry; accessed likewise */
	struct hgm_arrival in;
	uint64_t pages;
	uint64_t delivered;   /* CONTENTS: number of pages in the buffer */
	uint64_t awaited;     /* demand: number of pages waited for; the others are read ahead */
	uint64_t buffer_page; /* the first page of the buffer */
	enum hgm_request_step step;
	uint32_t attempt;
	uint32_t tries;	     /* fill: tries that failed before this request was made */
	bool transient;	     /* the last failure was a transient error */
	bool delivered_zero; /* zeroes were delivered; the buffer is not filled in */
	bool sparse;	     /* zeroes[] says which pages are zero */
	bool given;	     /* contents come from put.c, not from the source */
	bool fell_short;     /* the source delivered less than was requested */
	bool piecewise;	     /* all tries failed: go page by page to give up only bad pages */
	uint64_t asked_ns;
	uint64_t answered_ns;
	uint64_t failed_ns;	 /* time of the first failure that attempt counts */
	unsigned int recoveries; /* of the source, at that time */
	/* For an unanswered fill request (fill_source.c). Protected by the work queue's lock. */
	bool filling;
	bool overdue;
	uint64_t asked_bytes;
	uint64_t trip; /* for hgm_fill_window_answered() */
	struct hgm_request *fill_next;
	struct hgm_request *fill_before;
	uint64_t due_ns;
	bool starved; /* there is no memory for it; it counts as failing */
	struct hgm_read_through *through;
	uint64_t through_pages;	 /* as first requested */
	bool kept;		 /* its pages are claimed, and the contents also go into memory */
	_Atomic bool is_through; /* through is set; for hgm_requests_cancel_through() */
	struct hgm_request *next;
	_Atomic uint32_t next_free;
	uint64_t zeroes[HGM_LEAF_WORDS]; /* of a sparse answer, from buffer_page on */
};

HGM_WHOLE_LINES(struct hgm_request);

struct hgm_request_list {
	struct hgm_request *first;
	struct hgm_request *last;
};

struct hgm_request_pool {
	struct hgm_request *slot;
	_Atomic uint32_t top; /* slots from this one on were never used */
	/* HGM_REQUEST_MAX_BYTES per slot, allocated with the first region that copies. */
	_Atomic(char *) bounce;
	_Alignas(64) _Atomic uint64_t free; /* tag << 32 | index + 1 */
	_Atomic uint32_t fill_used;
	_Atomic uint32_t given; /* requests of put.c */
};

HGM_WHOLE_LINES(struct hgm_request_pool);

struct hgm;

/* All slots are taken. A thread that got none need not try again before one is put back. */
static inline bool hgm_requests_full(const struct hgm_request_pool *pool)
{
	return !(uint32_t)atomic_load_explicit(&pool->free, memory_order_relaxed);
}

/* Returns a slot that holds a reference to its region, or NULL if none is free. Lock-free. */
struct hgm_request *hgm_request_get(struct hgm_region *r, bool demand);
void hgm_request_put(struct hgm_request *req);

/*
 * A thread waits for a page that fill may have requested from a source. Returns true if the page
 * now belongs to the caller: it stays claimed, the caller fetches it with another request, and
 * fill's answer will leave it out. Otherwise *id is the request that the source must hurry with, or
 * 0 if there is none.
 */
bool hgm_request_raise(struct hgm_region *r, uint64_t page, uint64_t *id);

/* A request that waits for memory counts as failing, so that the counter shows it. */
void hgm_request_set_starved(struct hgm_request *req, bool starved);

/*
 * The ticket under which the source is asked next; the id of a ticket. hgm_request_asking() notes
 * that the source is asked under a ticket from now on. hgm_request_take_answer() returns true to
 * exactly one of the threads that bring the answer.
 */
uint64_t hgm_request_next_ticket(const struct hgm_request *req);
uint64_t hgm_request_id(const struct hgm *h, const struct hgm_request *req, uint64_t ticket);
void hgm_request_asking(struct hgm_request *req, uint64_t ticket);
bool hgm_request_take_answer(struct hgm_request *req, uint64_t ticket);

/*
 * hgm_request_of(): the request that a source was given, or NULL. hgm_request_was_asked(): false if
 * the request was never asked under this ticket.
 */
struct hgm_request *hgm_request_of(const struct hgm_io *io, uint64_t *ticket);
bool hgm_request_was_asked(const struct hgm_request *req, uint64_t ticket);

/* Have a worker run a request, now or later. */
void hgm_request_queue(struct hgm_request *req);
void hgm_request_queue_later(struct hgm_request *req, uint64_t due_ns);

/* The number of its pages that the source is asked for at a time. */
uint64_t hgm_request_asks(const struct hgm_request *req);

/* Where the source must put a request's contents. For a memory source, where they already are. */
void *hgm_request_buffer(const struct hgm_request *req);

/*
 * Take the request's next step and all further steps that do not have to wait. The request no
 * longer belongs to the caller. @may_sleep is false on fault threads, where a request to a blocking
 * source goes to the workers instead, and so does the waking of waiters. @now_ns is the time, if
 * the caller has just read it, else 0. Returns the time of the last installation if nothing slow
 * followed it, else 0.
 */
uint64_t hgm_request_run(struct hgm_request *req, bool may_sleep, uint64_t now_ns);

/*
 * kept.c. hgm_kept_claim() claims the pages of a read-through before the source is asked, if all of
 * them can be claimed. hgm_kept_install() puts the first @pages into memory when they have arrived.
 * hgm_kept_give_back() releases the pages that the request still owns. Fill fetches them.
 */
void hgm_kept_claim(struct hgm_request *req);
void hgm_kept_install(struct hgm_request *req, uint64_t pages);
void hgm_kept_give_back(struct hgm_request *req);

#endif
