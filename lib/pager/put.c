/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Contents that the caller supplies without being asked: the background stream of a migration, or
 * data that it has at hand.
 *
 * Each run of pages becomes a request that has its answer from the start. The thread that claims a
 * page first supplies its contents. Pages that are present, or on their way from the source, do not
 * change.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <hgm/region.h>

#include "install/discard.h"
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "work.h"

#define NAP_NS	  50000
#define GIVEN_MAX 256 /* requests at a time: contents that find no memory keep their request */

/* What a call supplies: the contents of @page and of the pages after it, or NULL for zeroes. */
struct put {
	uint64_t page;
	const char *buf;
};

static bool is_dying(const struct hgm_region *r)
{
	return atomic_load_explicit(&r->dying, memory_order_acquire);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

static bool may_begin(struct hgm_request_pool *pool)
{
	if (atomic_fetch_add_explicit(&pool->given, 1, memory_order_relaxed) < GIVEN_MAX)
		return true;
	atomic_fetch_sub_explicit(&pool->given, 1, memory_order_relaxed);
	return false;
}

/*
 * Wait for a free slot. The library's own threads put slots back. NULL: the region is being
 * destroyed.
 */
static struct hgm_request *get_request(struct hgm_region *r)
{
	struct hgm_request_pool *pool = r->h->requests;
	struct hgm_request *req = NULL;

	while (!req && !is_dying(r)) {
		if (may_begin(pool)) {
			req = hgm_request_get(r, true);
			if (req)
				req->given = true;
			else
				atomic_fetch_sub_explicit(&pool->given, 1, memory_order_relaxed);
		}
		if (!req)
			nap();
	}
	return req;
}

/* Give claimed pages their contents. Returns how many; the others are left as they were. */
static uint64_t bring(struct hgm_request *req, uint64_t page, uint64_t pages, const char *buf)
{
	struct hgm_region *r = req->in.r;
	uint64_t placed = pages;
	int64_t n;

	req->in.first_page = req->buffer_page = page;
	if (r->copies && buf)
		memcpy(hgm_request_buffer(req), buf, pages << HGM_PAGE_SHIFT);
	if (!r->copies && (buf || r->may_shrink)) {
		n = hgm_shrunk_write(r, page, pages, buf);
		placed = n > 0 ? (uint64_t)n : 0;
	}
	/* These are beyond the end of a truncated file, or holes. */
	if (placed < pages) {
		hgm_discard_holes(r, page + placed, pages - placed);
		hgm_map_release(r->map, page + placed, pages - placed);
		hgm_work_wake_released(r, page + placed, pages - placed);
	}
	if (!placed) {
		hgm_request_put(req);
		return 0;
	}
	req->pages = req->delivered = placed;
	req->delivered_zero = !buf && (r->copies || !r->may_shrink);
	req->step = HGM_STEP_CONTENTS;
	req->asked_ns = req->answered_ns = hgm_now_ns();
	hgm_request_run(req, true, 0);
	return placed;
}

/* Put the next pages of [*page, end), all of one word. Returns how many were taken, or -errno. */
static int64_t put_run(struct hgm_region *r, uint64_t *page, uint64_t end, const struct put *put)
{
	uint64_t word = *page / HGM_PAGES_PER_WORD, first, run;
	struct hgm_request *req;

	if (!(hgm_map_absent_word(r->map, word) & hgm_bits_of_range(*page, end - *page, word))) {
		*page = end;
		return is_dying(r) ? -ECANCELED : 0;
	}
	req = get_request(r);
	if (!req)
		return -ECANCELED;
	/* Leaves of the map become free again after a grace period. */
	while (hgm_work_claim_run(r, *page, end - *page, &first, &run))
		nap();
	*page = run ? first + run : end;
	if (!run) {
		hgm_request_put(req);
		return 0;
	}
	return (int64_t)bring(req, first, run,
			      put->buf ? put->buf + ((first - put->page) << HGM_PAGE_SHIFT) : NULL);
}

static int check(const struct hgm_region *r, uint64_t offset, uint64_t length)
{
	int rc = hgm_discard_check(r, offset, length, "hgm_region_put");

	if (rc)
		return rc;
	if (!atomic_load_explicit(&r->h->running, memory_order_acquire))
		return hgm_fail(-EINVAL, "hgm_region_put: the engine was not started; call "
					 "hgm_start()");
	if (hgm_thread_is_own())
		return hgm_fail(-EDEADLK, "hgm_region_put: called on a worker of the engine, which "
					  "would wait for itself; call it on another thread");
	return 0;
}

int64_t hgm_region_put(struct hgm_region *r, uint64_t offset, const void *buf, uint64_t length)
{
	HGM_UNCANCELLED;
	struct put put = { .buf = buf };
	int64_t taken = 0, n = check(r, offset, length);
	uint64_t page, end;

	if (n)
		return n;
	put.page = page = hgm_region_page_at(r, offset);
	end = page + (length >> HGM_PAGE_SHIFT);
	hgm_region_ref(r);
	while (page < end) {
		uint64_t border = (page / HGM_PAGES_PER_WORD + 1) * HGM_PAGES_PER_WORD;

		n = put_run(r, &page, border < end ? border : end, &put);
		if (n < 0)
			break;
		taken += n;
	}
	hgm_region_unref(r);
	if (n < 0 && !taken)
		return hgm_fail((int)n, "hgm_region_put: the region is being destroyed");
	return taken << HGM_PAGE_SHIFT;
}
