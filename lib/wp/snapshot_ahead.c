/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that had not arrived at the instant come from their sources. The workers ask for them ahead
 * of the sweep, inside the fill window of the region, as many at a time as the source takes. The
 * snapshot's thread never calls a source. While it waits for one, it gives the sink what was put
 * into the pool before writes.
 */
#include <sys/mman.h>

#include "install/discard.h"
#include "install/suspects.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "snapshot.h"
#include "util/bits.h"
#include "util/clock.h"

#define WORD_BYTES ((uint64_t)HGM_PAGES_PER_WORD << HGM_PAGE_SHIFT)
#define WAIT_NS	   1000000

uint64_t hgm_snapshot_absent(const struct hgm_part *part, uint64_t word)
{
	return ~(part->armed[word] | part->discarded[word]) & hgm_region_word(part->r, word);
}

int hgm_ahead_begin(struct hgm_snapshot *s)
{
	void *buf;
	int rc = hgm_sys->mmap(&buf, NULL, HGM_AHEAD_WORDS * WORD_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (!rc)
		s->ahead.buf = buf;
	return rc;
}

void hgm_ahead_end(struct hgm_snapshot *s)
{
	/* The snapshot has all contents, but some may still be on their way into memory. */
	pthread_mutex_lock(&s->lock);
	while (s->ahead.open_pages)
		hgm_cond_wait(&s->ahead_cond, &s->lock, hgm_now_ns() + WAIT_NS);
	pthread_mutex_unlock(&s->lock);
	if (s->ahead.buf)
		hgm_sys->munmap(s->ahead.buf, HGM_AHEAD_WORDS * WORD_BYTES);
	s->ahead.buf = NULL;
}

/* Any thread. */
static void done(struct hgm_read_through *through, uint64_t pages)
{
	struct hgm_ahead_word *w = (struct hgm_ahead_word *)through;
	struct hgm_snapshot *s = w->s;

	pthread_mutex_lock(&s->lock);
	w->requests--;
	s->ahead.open_pages -= pages;
	pthread_cond_signal(&s->ahead_cond); /* the snapshot's thread only */
	pthread_mutex_unlock(&s->lock);
}

/* The next word with absent pages; false: there is none. */
static bool find(struct hgm_snapshot *s)
{
	struct hgm_ahead *a = &s->ahead;

	for (; a->part < s->parts; a->part++, a->next_word = 0)
		for (; a->next_word < hgm_bits_words(hgm_region_end(s->part[a->part].r));
		     a->next_word++)
			if (hgm_snapshot_absent(&s->part[a->part], a->next_word))
				return true;
	return false;
}

static struct hgm_ahead_word *ring(struct hgm_snapshot *s, uint64_t number)
{
	return &s->ahead.word[number % HGM_AHEAD_WORDS];
}

/* The contents that this place had before may still be on their way into memory. */
static bool is_under_way(struct hgm_snapshot *s, const struct hgm_ahead_word *w)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = w->requests;
	pthread_mutex_unlock(&s->lock);
	return is;
}

/*
 * Pages that others have punched out of a prepared file before they arrived are zero, and this may
 * not have been noticed yet. Pages that hgm_region_discard() drops are present, or marked, before
 * they are holes: at the instant they had the contents of the source.
 */
static void find_holes(const struct hgm_ahead_word *w)
{
	struct hgm_region *r = w->part->r;
	uint64_t first = w->word * HGM_PAGES_PER_WORD;

	/* Drops that raised an event came after the instant. */
	hgm_suspects_check(r, first, HGM_PAGES_PER_WORD);
	hgm_discard_holes(r, first, HGM_PAGES_PER_WORD);
}

/* Add one more word to the ring; false: the ring is full, or there is no word. */
static bool add(struct hgm_snapshot *s)
{
	struct hgm_ahead *a = &s->ahead;
	struct hgm_ahead_word *w = ring(s, a->end);
	struct hgm_part *part;

	if (a->end - a->first == HGM_AHEAD_WORDS || is_under_way(s, w) || !find(s))
		return false;
	part = &s->part[a->part];
	w->s = s;
	w->part = part;
	w->word = a->next_word++;
	w->unasked = hgm_snapshot_absent(part, w->word);
	find_holes(w);
	w->unasked &= ~atomic_load_explicit(&part->holes[w->word], memory_order_acquire);
	w->through.buf = a->buf + a->end % HGM_AHEAD_WORDS * WORD_BYTES;
	w->through.done = done;
	atomic_store_explicit(&w->through.open, w->unasked, memory_order_relaxed);
	atomic_store_explicit(&w->through.unreadable, 0, memory_order_relaxed);
	a->end++;
	return true;
}

/* Make one request; false: not now. */
static bool ask(struct hgm_snapshot *s, struct hgm_ahead_word *w)
{
	struct hgm_region *r = w->part->r;
	uint64_t low = (uint64_t)__builtin_ctzll(w->unasked), chunk, pages, absent;
	uint64_t room = hgm_work_through_room(r, &chunk);

	/* Request pages that can be kept separately from those that cannot. */
	absent = hgm_map_absent_word(r->map, w->word);
	absent = absent >> low & 1 ? absent : ~absent;
	pages = hgm_bits_ones((w->unasked & absent) >> low);
	pages = pages < chunk >> HGM_PAGE_SHIFT ? pages : chunk >> HGM_PAGE_SHIFT;
	pthread_mutex_lock(&s->lock);
	if (s->ahead.open_pages && (s->ahead.open_pages + pages) << HGM_PAGE_SHIFT > room) {
		pthread_mutex_unlock(&s->lock);
		return false;
	}
	w->requests++;
	s->ahead.open_pages += pages;
	pthread_mutex_unlock(&s->lock);
	if (hgm_request_read_through(r, &w->through, w->word * 64 + low, pages)) {
		done(&w->through, pages);
		return false;
	}
	w->unasked &= ~(hgm_bits_low(pages) << low);
	return true;
}

void hgm_ahead_ask(struct hgm_snapshot *s)
{
	struct hgm_ahead *a = &s->ahead;

	while (!hgm_snapshot_failed(s) && (a->asking < a->end || add(s))) {
		struct hgm_ahead_word *w = ring(s, a->asking);

		if (!w->unasked)
			a->asking++;
		else if (!ask(s, w))
			return;
	}
}

struct hgm_ahead_word *hgm_ahead_first(struct hgm_snapshot *s)
{
	/* There is such a word, but its place in the ring may not be free yet. */
	while (s->ahead.first == s->ahead.end && !add(s))
		hgm_ahead_wait(s);
	return ring(s, s->ahead.first);
}

bool hgm_ahead_done(struct hgm_snapshot *s, const struct hgm_ahead_word *w)
{
	return !w->unasked && (!atomic_load_explicit(&w->through.open, memory_order_acquire) ||
			       !is_under_way(s, w));
}

void hgm_ahead_wait(struct hgm_snapshot *s)
{
	pthread_mutex_lock(&s->lock);
	hgm_cond_wait(&s->ahead_cond, &s->lock, hgm_now_ns() + WAIT_NS);
	pthread_mutex_unlock(&s->lock);
}

void hgm_ahead_next(struct hgm_snapshot *s)
{
	s->ahead.first++;
	if (s->ahead.asking < s->ahead.first)
		s->ahead.asking = s->ahead.first;
}

/* Cancel repeatedly: a worker may have been about to ask when all requests were cancelled. */
void hgm_ahead_give_up(struct hgm_snapshot *s)
{
	struct hgm_ahead *a = &s->ahead;

	for (uint64_t i = a->first; i < a->end; i++)
		atomic_store_explicit(&ring(s, i)->through.given_up, true, memory_order_release);
	pthread_mutex_lock(&s->lock);
	while (a->open_pages) {
		pthread_mutex_unlock(&s->lock);
		for (uint32_t i = 0; i < s->parts; i++)
			hgm_requests_cancel_through(s->part[i].r);
		pthread_mutex_lock(&s->lock);
		if (a->open_pages)
			hgm_cond_wait(&s->ahead_cond, &s->lock, hgm_now_ns() + WAIT_NS);
	}
	pthread_mutex_unlock(&s->lock);
}
