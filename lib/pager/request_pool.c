/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The slots of requests, which threads take and put back without a lock, and their buffers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel/sys.h"
#include "region/hgm.h"
#include "request.h"
#include "source/source.h"
#include "work.h"

int hgm_requests_init(struct hgm *h)
{
	struct hgm_request_pool *pool =
		aligned_alloc(_Alignof(struct hgm_request_pool), sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	memset(pool, 0, sizeof(*pool));
	h->requests = pool;
	pool->slot =
		aligned_alloc(_Alignof(struct hgm_request), HGM_REQUESTS * sizeof(pool->slot[0]));
	if (!pool->slot)
		return -ENOMEM;
	memset(pool->slot, 0, HGM_REQUESTS * sizeof(pool->slot[0]));
	for (uint32_t i = 0; i < HGM_REQUESTS; i++)
		atomic_init(&pool->slot[i].next_free, i + 1 < HGM_REQUESTS ? i + 2 : 0);
	atomic_init(&pool->free, 1);
	return 0;
}

void hgm_requests_destroy(struct hgm *h)
{
	char *bounce;

	if (!h->requests)
		return;
	bounce = atomic_load_explicit(&h->requests->bounce, memory_order_acquire);
	if (bounce)
		hgm_sys->munmap(bounce, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	free(h->requests->slot);
	free(h->requests);
	h->requests = NULL;
}

int hgm_requests_need_bounce(struct hgm *h)
{
	char *expected = NULL;
	void *mem;
	int rc;

	if (atomic_load_explicit(&h->requests->bounce, memory_order_acquire))
		return 0;
	rc = hgm_sys->mmap(&mem, NULL, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | HGM_MAP_UNLOCKED, -1, 0);
	if (rc)
		return rc;
	hgm_sys->madvise(mem, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES, MADV_DONTDUMP);
	if (!atomic_compare_exchange_strong_explicit(&h->requests->bounce, &expected, mem,
						     memory_order_acq_rel, memory_order_acquire))
		hgm_sys->munmap(mem, HGM_REQUESTS * HGM_REQUEST_MAX_BYTES);
	return 0;
}

static void note_top(struct hgm_request_pool *pool, uint32_t top)
{
	uint32_t was = atomic_load_explicit(&pool->top, memory_order_relaxed);

	while (was < top &&
	       !atomic_compare_exchange_weak_explicit(&pool->top, &was, top, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* A tag in the upper half changes with each pop and push, which prevents ABA. */
struct hgm_request *hgm_request_get(struct hgm_region *r, bool demand)
{
	struct hgm_request_pool *pool = r->h->requests;
	struct hgm_request *req;
	uint64_t head, next;

	if (!demand && atomic_fetch_add_explicit(&pool->fill_used, 1, memory_order_relaxed) >=
			       HGM_REQUESTS_FILL) {
		atomic_fetch_sub_explicit(&pool->fill_used, 1, memory_order_relaxed);
		return NULL;
	}
	head = atomic_load_explicit(&pool->free, memory_order_acquire);
	do {
		if (!(uint32_t)head) {
			if (!demand)
				atomic_fetch_sub_explicit(&pool->fill_used, 1,
							  memory_order_relaxed);
			return NULL;
		}
		req = &pool->slot[(uint32_t)head - 1];
		next = ((head >> 32) + 1) << 32 |
		       atomic_load_explicit(&req->next_free, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
		&pool->free, &head, next, memory_order_acq_rel, memory_order_acquire));
	if ((uint32_t)head > atomic_load_explicit(&pool->top, memory_order_relaxed))
		note_top(pool, (uint32_t)head);
	req->in.r = r;
	req->in.demand = demand;
	req->in.sequential = req->in.shared = false;
	req->tries = 0;
	req->step = HGM_STEP_ASK;
	req->attempt = 0;
	req->in.backoff_us = 0;
	req->through = NULL;
	req->kept = false;
	atomic_store_explicit(&req->is_through, false, memory_order_relaxed);
	req->taken = req->delivered = 0;
	req->awaited = UINT64_MAX;
	req->starved = req->given = false;
	req->hurried = req->fell_short = false;
	req->sparse = req->in.zero = req->in.scribbled = req->in.filled_block = req->piecewise =
		req->in.wake_later = false;
	hgm_region_ref(r);
	return req;
}

/* A starved request counts as failing, so that the counter shows why it takes so long. */
void hgm_request_set_starved(struct hgm_request *req, bool starved)
{
	_Atomic uint64_t *failing = &req->in.r->h->failing_requests;

	if (starved && !req->starved)
		atomic_fetch_add_explicit(failing, 1, memory_order_relaxed);
	else if (!starved && req->starved)
		atomic_fetch_sub_explicit(failing, 1, memory_order_relaxed);
	req->starved = starved;
}

void hgm_request_put(struct hgm_request *req)
{
	struct hgm_region *r = req->in.r;
	struct hgm *h = r->h;
	struct hgm_request_pool *pool = h->requests;
	uint64_t index = (uint64_t)(req - pool->slot) + 1;
	uint64_t head = atomic_load_explicit(&pool->free, memory_order_relaxed);
	uint64_t next;

	if (req->attempt)
		atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
	hgm_request_set_starved(req, false);
	hgm_kept_give_back(req);
	if (!req->in.demand)
		atomic_fetch_sub_explicit(&pool->fill_used, 1, memory_order_relaxed);
	if (req->given)
		atomic_fetch_sub_explicit(&pool->given, 1, memory_order_relaxed);
	if (req->through) {
		req->through->done(req->through, req->through_pages);
		hgm_work_through_ended(r);
	}
	do {
		atomic_store_explicit(&req->next_free, (uint32_t)head, memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | index;
	} while (!atomic_compare_exchange_weak_explicit(
		&pool->free, &head, next, memory_order_acq_rel, memory_order_relaxed));
	hgm_region_unref(r);
}

uint64_t hgm_request_asks(const struct hgm_request *req)
{
	return req->piecewise ? 1 : req->pages;
}

void *hgm_request_buffer(const struct hgm_request *req)
{
	struct hgm_request_pool *pool = req->in.r->h->requests;

	if (req->through)
		return req->through->buf +
		       (req->in.first_page % HGM_PAGES_PER_WORD << HGM_PAGE_SHIFT);
	if (!req->in.r->copies && !req->in.r->bounces)
		return req->in.r->alias + (req->in.first_page << HGM_PAGE_SHIFT);
	if (req->in.r->source->memory && !req->given) /* it has them; no thread writes to them */
		return (char *)(uintptr_t)req->in.r->source->memory +
		       hgm_region_source_at(req->in.r, req->in.first_page);
	return atomic_load_explicit(&pool->bounce, memory_order_acquire) +
	       (size_t)(req - pool->slot) * HGM_REQUEST_MAX_BYTES +
	       ((req->in.first_page - req->buffer_page) << HGM_PAGE_SHIFT);
}
