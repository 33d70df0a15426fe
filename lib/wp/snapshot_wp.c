/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a snapshot does as the wp owner of its regions: it saves pages before they are written to,
 * and notes pages that are dropped or found to be holes. Also how it reads pages, and fails.
 */
#include <errno.h>
#include <stddef.h>

#include "region/hgm.h"
#include "region/memory.h"
#include "snapshot.h"
#include "util/bits.h"
#include "util/error.h"

/*
 * Count pages that were dropped by other means than hgm_region_discard() before they were copied.
 * Pages that are not zero were copied before, or their contents are in a file that was not changed.
 */
static void count_lost(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		       uint64_t pages, const char *buf)
{
	uint64_t lost = 0;

	/* Memory is dropped once the event is read, just before the event is noted. */
	if (pthread_equal(pthread_self(), s->thread))
		hgm_reads_wait(&part->r->view.space->reads[hgm_view_stripe(&part->r->view, page)]);
	for (uint64_t i = 0; i < pages; i++)
		if (atomic_load_explicit(&part->dropped[(page + i) / 64], memory_order_acquire) >>
			    (page + i) % 64 &
		    1)
			lost += hgm_sink_is_zero(buf + (i << HGM_PAGE_SHIFT));
	if (!lost)
		return;
	atomic_fetch_add_explicit(&s->unreadable_pages, lost, memory_order_relaxed);
	hgm_log_some(&s->h->log, HGM_LOG_DROPPED, HGM_LOG_WARNING,
		     "a snapshot has zeroes for %llu KiB at %p: they were dropped (MADV_DONTNEED, "
		     "MADV_REMOVE) before the snapshot had saved them; hgm_region_discard() waits "
		     "until it has",
		     (unsigned long long)lost * HGM_PAGE_BYTES >> 10, hgm_region_at(part->r, page));
}

/* On the thread that has read the event. Pages that are being copied now may be lost, too. */
static void note_dropped(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_part *part = hgm_wp_user(r);

	(void)g;
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		atomic_fetch_or_explicit(&part->dropped[w],
					 hgm_bits_of_range(page, pages, w) & hgm_wp_word(r, w),
					 memory_order_release);
}

/* Copy pages, whose slots are consecutive, into the pool. Then clear their wp bits. */
static void save_run(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		     uint32_t slot, uint64_t pages)
{
	struct hgm_region *r = part->r;

	if (!pages)
		return;
	hgm_snapshot_read(s, part, page, pages, hgm_pool_page(&s->pool, slot));
	for (uint32_t i = 0; i < pages; i++) {
		s->pool.slot[slot + i].part = part->number;
		s->pool.slot[slot + i].page = page + i;
		hgm_pool_ready(&s->pool, slot + i);
	}
	hgm_wp_clear_pages(r, page, pages);
	atomic_fetch_add_explicit(&s->copied_pages, pages, memory_order_relaxed);
}

/* A write to pages whose wp bits are set: copy their old contents into the pool. */
static int save_word(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, uint64_t want)
{
	struct hgm_region *r = part->r;
	uint64_t mine, first = 0, run = 0;
	uint32_t from = 0;

	want &= hgm_wp_word(r, word);
	if (!want)
		return 0;
	mine = want & ~atomic_fetch_or_explicit(&part->saving[word], want, memory_order_acq_rel);
	for (uint64_t bits = mine; bits; bits &= bits - 1) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
		int64_t slot = hgm_pool_get(&s->pool);

		if (!run || page != first + run || slot != (int64_t)(from + run)) {
			save_run(s, part, first, from, run);
			first = page;
			from = (uint32_t)slot;
			run = 0;
		}
		if (slot < 0) { /* the sink must empty the pool first */
			atomic_fetch_add_explicit(&s->pool_full, 1, memory_order_relaxed);
			atomic_fetch_and_explicit(&part->saving[word], ~bits, memory_order_acq_rel);
			return -EAGAIN;
		}
		run++;
	}
	save_run(s, part, first, from, run);
	return want == mine ? 0 : -EAGAIN; /* another thread is copying the rest */
}

static int save_before_write(struct hgm_wp *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_part *part = hgm_wp_user(r);
	int rc = 0;

	(void)g;
	if (hgm_snapshot_failed(part->s)) { /* the sink may be blocking its thread */
		hgm_wp_clear_pages(r, page, pages);
		return 0;
	}
	for (uint64_t w = page / 64; w * 64 < page + pages && !rc; w++)
		rc = save_word(part->s, part, w, hgm_bits_of_range(page, pages, w));
	return rc;
}

/* A region is being destroyed, and waits for us: give nothing more to the sink. */
static void hurry(struct hgm_wp *g)
{
	struct hgm_snapshot *s =
		(struct hgm_snapshot *)((char *)g - offsetof(struct hgm_snapshot, wp));

	hgm_snapshot_fail(s, -ECANCELED);
	pthread_cond_broadcast(&s->cond);
}

static void note_holes(struct hgm_wp *g, struct hgm_region *r, uint64_t word, uint64_t bits)
{
	struct hgm_part *part = hgm_wp_user(r);

	(void)g;
	atomic_fetch_or_explicit(&part->holes[word], bits, memory_order_release);
}

const struct hgm_wp_ops hgm_snapshot_wp_ops = {
	.write = save_before_write,
	.removed = note_dropped,
	.holes = note_holes,
	.hurry = hurry,
};

bool hgm_snapshot_set_error(struct hgm_snapshot *s, int error)
{
	int none = 0;

	return error &&
	       atomic_compare_exchange_strong_explicit(
		       &s->error, &none, error, memory_order_acq_rel, memory_order_relaxed) &&
	       error != -ECANCELED;
}

void hgm_snapshot_log_error(struct hgm *h, int error)
{
	hgm_log(&h->log, HGM_LOG_WARNING, "a snapshot failed: %s", hgm_errno_name(error));
}

void hgm_snapshot_fail(struct hgm_snapshot *s, int error)
{
	if (hgm_snapshot_set_error(s, error))
		hgm_snapshot_log_error(s->h, error);
}

void hgm_snapshot_read(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		       uint64_t pages, void *buf)
{
	struct hgm_memory_outcome out = hgm_memory_read(part->r, page, pages, buf);

	if (!out.unreadable) {
		count_lost(s, part, page, pages, buf);
		return;
	}
	atomic_fetch_add_explicit(&s->unreadable_pages,
				  (uint64_t)__builtin_popcountll(out.unreadable),
				  memory_order_relaxed);
	atomic_store_explicit(&s->read_error, out.error, memory_order_relaxed);
}
