/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handle the answer of a source: fill in zeroes, put contents into the alias, publish them, or pass
 * them to a read-through.
 */
#include <errno.h>
#include <string.h>

#include "fill.h"
#include "install/discard.h"
#include "install/resolve.h"
#include "readahead.h"
#include "region/hgm.h"
#include "request.h"
#include "step.h"
#include "util/bits.h"
#include "util/clock.h"
#include "util/trace.h"
#include "work.h"

#define ERRNO_MAX 4095 /* a smaller result is garbage */

/* For a sparse answer: how many pages from the first on are alike, and whether they are zero. */
static uint64_t alike(const struct hgm_request *req, uint64_t most, bool *zero)
{
	uint64_t at = req->in.first_page - req->buffer_page, run = 0;

	for (; run < most; run++, at++) {
		bool is = req->zeroes[at / 64] >> at % 64 & 1;

		if (!run)
			*zero = is;
		else if (is != *zero)
			break;
	}
	return run;
}

static void write_zeroes(const struct hgm_request *req, uint64_t pages)
{
	char *buf = hgm_request_buffer(req);
	uint64_t at = req->in.first_page - req->buffer_page;

	for (uint64_t i = 0; i < pages; i++, at++)
		if (req->zeroes[at / 64] >> at % 64 & 1)
			memset(buf + (i << HGM_PAGE_SHIFT), 0, HGM_PAGE_BYTES);
}

/* Pages of a read-through have arrived, or never will. */
bool hgm_step_through(struct hgm_request *req, uint64_t pages, bool readable)
{
	struct hgm_read_through *through = req->through;
	uint64_t bits = hgm_bits_low(pages) << req->in.first_page % HGM_PAGES_PER_WORD;

	if (readable && req->sparse)
		write_zeroes(req, pages);
	if (!readable || req->in.zero)
		memset(hgm_request_buffer(req), 0, pages << HGM_PAGE_SHIFT);
	if (!readable)
		atomic_fetch_or_explicit(&through->unreadable, bits, memory_order_relaxed);
	atomic_fetch_and_explicit(&through->open, ~bits, memory_order_release);
	hgm_kept_install(req, pages);
	return hgm_step_go_on(req, pages);
}

static void fell_short(struct hgm_request *req)
{
	struct hgm *h = req->in.r->h;

	hgm_stat_add(&h->stats, HGM_STAT_SOURCE_SHORT, 1);
	req->fell_short = true;
	if (req->attempt)
		atomic_fetch_sub_explicit(&h->failing_requests, 1, memory_order_relaxed);
	req->attempt = 0;
}

/* Delivered pages cannot be put into memory. Ask the source for them again. */
static bool not_placed(struct hgm_request *req, int rc)
{
	if (hgm_step_cut_off(req, rc))
		return true;
	hgm_discard_holes(req->in.r, req->in.first_page, req->pages);
	req->delivered = 0;
	return hgm_step_put_off_by_kernel(req, HGM_STEP_ASK);
}

/*
 * Where contents go into the alias by system calls only: put the request's first pages there,
 * perhaps fewer than *pages. -errno: none.
 */
static int place(struct hgm_request *req, uint64_t *pages)
{
	int64_t n;

	if (!req->in.r->bounces && (!req->in.zero || !req->in.r->may_shrink || req->in.r->copies))
		return 0;
	n = hgm_shrunk_write(req->in.r, req->in.first_page, *pages,
			     req->in.zero ? NULL : hgm_request_buffer(req));
	if (n <= 0)
		return n ? (int)n : -EFAULT;
	*pages = (uint64_t)n;
	return 0;
}

/* Handle the delivered pages, up to the first one that demand has taken. */
bool hgm_step_contents(struct hgm_request *req, uint64_t *now_ns)
{
	uint64_t run = hgm_step_not_taken(req);
	int rc;

	run = run < req->delivered ? run : req->delivered;
	if (req->sparse)
		run = alike(req, run, &req->delivered_zero);
	req->in.zero = req->delivered_zero; /* a run may have been written out as zeroes */
	rc = req->given ? 0 : place(req, &run);
	if (rc)
		return not_placed(req, rc);
	req->in.buffer = hgm_request_buffer(req);
	return hgm_step_installed(req, hgm_resolve_contents(&req->in, run), now_ns);
}

/* The source's own fault. It counts as EIO. */
static void log_impossible(struct hgm_request *req, int64_t result, uint64_t length)
{
	hgm_log_some(&req->in.r->h->log, HGM_LOG_IMPOSSIBLE, HGM_LOG_ERROR,
		     "source: %lld is not a valid answer to a request of %llu bytes: it is neither "
		     "4096 or more of these bytes nor a negative errno",
		     (long long)result, (unsigned long long)length);
}

/* @zeroes: a bit for each page that is zero; NULL: all pages or none are zero, as @result says. */
bool hgm_step_answered(struct hgm_request *req, int64_t result, const uint64_t *zeroes, bool later,
		       uint64_t *now_ns)
{
	struct hgm *h = req->in.r->h;
	uint64_t length = hgm_request_asks(req) << HGM_PAGE_SHIFT;
	uint64_t bytes = result < 0 ? 0 : (uint64_t)(result & ~HGM_IO_ZERO);
	bool ok = bytes >= HGM_PAGE_BYTES && bytes <= length;

	req->answered_ns = hgm_now_ns();
	HGM_TRACE2(answer, req, result);
	if (req->in.demand)
		hgm_stat_phase(&h->stats, HGM_PHASE_SOURCE, req->answered_ns - req->asked_ns);
	if (req->filling)
		hgm_work_fill_done(h, req, ok ? bytes & ~(HGM_PAGE_BYTES - 1) : 0, later);
	if (!ok && result < 0 && result >= -ERRNO_MAX)
		return hgm_step_failed(req, (int)result);
	if (!ok) {
		if (!hgm_step_unwanted(
			    req)) /* else it may be how the source says that it gave up */
			log_impossible(req, result, length);
		return hgm_step_failed(req, -EIO);
	}
	hgm_step_succeeded(req);
	req->in.zero = req->delivered_zero = result & HGM_IO_ZERO;
	req->sparse = zeroes;
	if (zeroes)
		memcpy(req->zeroes, zeroes, hgm_bits_words(bytes >> HGM_PAGE_SHIFT) * 8);
	if (req->through)
		return hgm_step_through(req, bytes >> HGM_PAGE_SHIFT, true);
	req->delivered = bytes >> HGM_PAGE_SHIFT;
	if (req->delivered < hgm_request_asks(req))
		fell_short(req);
	else if (req->in.demand)
		hgm_readahead_took(&req->in.r->fill->readahead, req->delivered,
				   req->answered_ns - req->asked_ns);
	while (req->taken & 1)
		hgm_step_advance(req, 1);
	/*
	 * A thread that reads events can neither drop pages that were discarded meanwhile nor wait
	 * for a thread that does so. Leave the copying to the workers.
	 */
	if (later && req->delivered && req->in.r->copies && hgm_reads_events()) {
		req->step = HGM_STEP_CONTENTS;
		return true;
	}
	return req->delivered ? hgm_step_contents(req, now_ns) : hgm_step_go_on(req, 0);
}
