/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keep in memory what a snapshot reads by read-through.
 *
 * A snapshot uses read-through for pages that have not arrived. If fill would fetch them anyway,
 * they are claimed before the source is asked, and copied from the snapshot's buffer into
 * memory. The snapshot never waits for that: it gets its contents first. Pages that the kernel does
 * not accept at once, or that the source does not supply, are left to fill.
 */
#include "install/resolve.h"
#include "region/hgm.h"
#include "request.h"
#include "util/bits.h"
#include "util/copy.h"
#include "work.h"

static void give_back(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	if (!pages)
		return;
	hgm_work_let_go(r, page, pages);
	hgm_work_wake_released(r, page, pages);
}

/* Of the first @pages: the next run at or after *at that demand has not taken; 0: none. */
static uint64_t next_run(const struct hgm_request *req, uint64_t pages, uint64_t *at)
{
	uint64_t mine = ~req->taken & hgm_bits_low(pages);

	mine = *at < 64 ? mine >> *at : 0;
	if (!mine)
		return 0;
	*at += (uint64_t)__builtin_ctzll(mine);
	return hgm_bits_ones(mine >> __builtin_ctzll(mine));
}

void hgm_kept_claim(struct hgm_request *req)
{
	uint64_t word = req->in.first_page / HGM_PAGES_PER_WORD, mine, low, run;
	uint64_t want = hgm_bits_of_range(req->in.first_page, req->pages, word);
	struct hgm_region *r = req->in.r;

	if (req->kept || req->attempt || r->flags & HGM_REGION_NO_FILL ||
	    (hgm_map_absent_word(r->map, word) & want) != want ||
	    hgm_map_discarded_word(r->map, word) & want || hgm_map_claim(r->map, word, want, &mine))
		return;
	req->kept = mine == want;
	while (!req->kept && hgm_bits_take_run(&mine, &low, &run))
		give_back(r, word * HGM_PAGES_PER_WORD + low, run);
}

void hgm_kept_give_back(struct hgm_request *req)
{
	uint64_t at = 0, run;

	if (!req->kept)
		return;
	for (; (run = next_run(req, req->pages, &at)); at += run)
		give_back(req->in.r, req->in.first_page + at, run);
	req->kept = false;
	req->taken = 0;
}

/* Copy into the alias. Returns how many pages were copied. */
static uint64_t place(const struct hgm_request *req, uint64_t pages)
{
	char *to = req->in.r->alias + (req->in.first_page << HGM_PAGE_SHIFT);
	int64_t n;

	if (req->in.zero && req->in.r->zeroed &&
	    !atomic_load_explicit(&req->in.r->scribbled, memory_order_acquire))
		return pages;
	if (!req->in.r->may_shrink) {
		hgm_copy_cold(to, hgm_request_buffer(req), pages << HGM_PAGE_SHIFT);
		return pages;
	}
	n = hgm_shrunk_copy(req->in.r, to, hgm_request_buffer(req), pages << HGM_PAGE_SHIFT);
	return n > 0 ? (uint64_t)n >> HGM_PAGE_SHIFT : 0;
}

/* Pages in the alias are present. One that could not be mapped is mapped when it is touched. */
static void by_alias(struct hgm_request *req, uint64_t pages)
{
	uint64_t placed = place(req, pages);
	struct hgm_region *r = req->in.r;

	req->in.zero = false; /* the zeroes are written already */
	if (placed && hgm_resolve_contents(&req->in, placed)) {
		hgm_region_wake(r, req->in.install_page, req->in.install_pages);
		hgm_resolve_settle(&req->in);
	}
	give_back(r, req->in.first_page + placed, pages - placed);
}

static void by_copy(struct hgm_request *req, uint64_t pages)
{
	uint64_t end = req->in.first_page + pages, rest;

	if (!hgm_resolve_contents(&req->in, pages))
		return;
	rest = end - req->in.install_page;
	req->in.settling_pages = pages - rest;
	if (req->in.settling_pages)
		hgm_resolve_settle(&req->in);
	give_back(req->in.r, req->in.install_page, rest);
}

void hgm_kept_install(struct hgm_request *req, uint64_t pages)
{
	uint64_t first = req->in.first_page, at = 0, run;
	bool zero = req->in.zero;

	req->in.shared = true;
	req->in.sequential = true; /* map it with the rest of its block, when that is full */
	for (; req->kept && (run = next_run(req, pages, &at)); at += run) {
		req->in.first_page = first + at;
		req->in.buffer = hgm_request_buffer(req);
		req->in.zero = zero;
		if (req->in.r->copies)
			by_copy(req, run);
		else
			by_alias(req, run);
	}
	req->in.first_page = first;
}
