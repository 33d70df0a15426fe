/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sources that behave in every way: prompt, slow, blocking, out of order, in parts, away for a
 * while, silent for a while, and with pages that cannot be had.
 */
#include "chaos.h"

#include <errno.h>

#define SUPPLIES    4
#define ANSWERERS   2
#define PENDING_MAX 4096
#define MISHAP_US   400000 /* a source is away or silent for at most so long */
#define ALL_PAGES   (ARENAS * PAGES_MAX)
#define BAD_RUNS    16

enum kind {
	KIND_MEMORY,
	KIND_FILE,
	KIND_FUNCTION,
	KIND_BLOCKING,
};

struct supply {
	enum kind kind;
	bool cancels, hurries;
	unsigned int later, shorter, slow, fails; /* of 16 requests */
	uint64_t seed;
	struct hgm_source *source;
	struct provider *provider; /* of KIND_MEMORY and KIND_FILE; shared by all lives */
	_Atomic uint64_t calls;
	_Atomic uint64_t silent_until, away_until;
	_Atomic bool bad[ALL_PAGES]; /* cannot be had */
	bool ever_bad[ALL_PAGES];
	uint64_t bad_run[BAD_RUNS]; /* where runs begin; 0 where there are fewer */
	unsigned int bad_runs;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct hgm_io pending[PENDING_MAX];
	unsigned int pending_count;
	bool stop;
	pthread_t answerer[ANSWERERS];
};

static struct supply supplies[SUPPLIES];
static _Atomic bool calm_now;

static struct random dice(struct supply *s, const struct hgm_io *io)
{
	uint64_t call = atomic_fetch_add(&s->calls, 1);

	return (struct random){ mix(s->seed + call * 31 + io->offset) };
}

static bool in_trouble(const _Atomic uint64_t *until)
{
	return !atomic_load(&calm_now) && now_us() < atomic_load(until);
}

static bool is_bad(const struct supply *s, uint64_t page)
{
	return atomic_load_explicit(&s->bad[page], memory_order_relaxed);
}

static struct arena *arena_at(uint64_t page)
{
	return &life.arena[page / PAGES_MAX];
}

static int64_t said(const struct hgm_io *io, const char *what, int64_t result)
{
	uint64_t page = io->offset / PAGE;

	note(arena_at(page), 100, what, page % PAGES_MAX, io->length / PAGE, (uint64_t)result);
	return result;
}

/* Answers up to the next border between contents, holes and pages that cannot be had. */
static int64_t deliver(struct supply *s, const struct hgm_io *io, uint64_t most, bool plain)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE, n = 1;
	bool hole = contents_hole(&chaos_contents, page) && !plain;

	if (is_bad(s, page))
		return said(io, "source: EIO", -EIO);
	pages = pages < most ? pages : most;
	while (n < pages && !is_bad(s, page + n) &&
	       (plain || contents_hole(&chaos_contents, page + n) == hole))
		n++;
	if (hole)
		return said(io, "source: zeroes", (int64_t)(n * PAGE) | HGM_IO_ZERO);
	contents_write(&chaos_contents, page, n, io->buf);
	return said(io, "source: contents", (int64_t)(n * PAGE));
}

/* Answers everything at once, holes and contents. */
static void answer_sparsely(const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE, zeroes[8] = { 0 };

	for (uint64_t i = 0; i < pages; i++)
		if (contents_hole(&chaos_contents, page + i))
			zeroes[i / 64] |= UINT64_C(1) << i % 64;
		else
			contents_write(&chaos_contents, page + i, 1, (char *)io->buf + i * PAGE);
	said(io, "source: sparse", (int64_t)io->length);
	must(hgm_io_done_sparse(io, io->length, zeroes), "hgm_io_done_sparse");
}

static bool any_is_bad(const struct supply *s, const struct hgm_io *io)
{
	for (uint64_t i = 0; i < io->length / PAGE; i++)
		if (is_bad(s, io->offset / PAGE + i))
			return true;
	return false;
}

static int64_t keep(struct supply *s, const struct hgm_io *io)
{
	int64_t result = HGM_IO_LATER;

	said(io, "source: later", 0);
	pthread_mutex_lock(&s->lock);
	if (s->pending_count == PENDING_MAX)
		result = -ENOBUFS;
	else
		s->pending[s->pending_count++] = *io;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return result;
}

static int64_t answer(struct supply *s, const struct hgm_io *io, struct random *r)
{
	static const int passing[] = { ECONNRESET, ETIMEDOUT, EAGAIN, ENOTCONN, EPIPE };
	bool plain = random_one_in(r, 2);
	uint64_t most = random_below(r, 16) < s->shorter ? 1 + random_below(r, 8) : UINT64_MAX;

	if (in_trouble(&s->away_until))
		return said(io, "source: away", -passing[random_below(r, 5)]);
	if (!io->attempt && !atomic_load(&calm_now) && random_below(r, 16) < s->fails)
		return said(io, "source: fails once", -EIO);
	return deliver(s, io, most, plain);
}

static int64_t read_function(void *user, const struct hgm_io *io)
{
	struct supply *s = user;
	struct random r = dice(s, io);

	if (random_below(&r, 16) < s->later || in_trouble(&s->silent_until))
		return keep(s, io);
	return answer(s, io, &r);
}

static bool is_cancelled(struct supply *s, uint64_t id)
{
	bool cancelled = true;

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < s->pending_count; i++)
		cancelled &= s->pending[i].id != id;
	pthread_mutex_unlock(&s->lock);
	return cancelled;
}

static void forget(struct supply *s, uint64_t id)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < s->pending_count; i++)
		if (s->pending[i].id == id)
			s->pending[i] = s->pending[--s->pending_count];
	pthread_mutex_unlock(&s->lock);
}

/*
 * A blocking source sleeps. If it is silent, it does so until that has passed or the request was
 * cancelled.
 */
static int64_t read_blocking(void *user, const struct hgm_io *io)
{
	struct supply *s = user;
	struct random r = dice(s, io);
	bool cancelled = false;

	if (random_below(&r, 16) < s->slow)
		nap_us((unsigned int)random_below(&r, 2000));
	keep(s, io);
	while (in_trouble(&s->silent_until) && !cancelled) {
		nap_us(500);
		cancelled = is_cancelled(s, io->id);
	}
	forget(s, io->id);
	return cancelled ? said(io, "source: cancelled", -ECANCELED) : answer(s, io, &r);
}

static bool take_any(struct supply *s, struct random *r, struct hgm_io *io)
{
	unsigned int i;

	if (!s->pending_count || in_trouble(&s->silent_until))
		return false;
	i = (unsigned int)random_below(r, s->pending_count);
	*io = s->pending[i];
	s->pending[i] = s->pending[--s->pending_count];
	return true;
}

static void *answerer(void *arg)
{
	struct supply *s = arg;
	struct random r = { s->seed };
	struct hgm_io io;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		if (!take_any(s, &r, &io)) {
			pthread_mutex_unlock(&s->lock);
			nap_us(200);
			pthread_mutex_lock(&s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		if (random_below(&r, 16) < s->slow)
			nap_us((unsigned int)random_below(&r, 1000));
		if (random_one_in(&r, 4) && !in_trouble(&s->away_until) && !any_is_bad(s, &io))
			answer_sparsely(&io);
		else
			must(hgm_io_done(&io, answer(s, &io, &r)), "hgm_io_done");
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static bool take(struct supply *s, uint64_t id, struct hgm_io *io)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < s->pending_count && !found; i++) {
		found = s->pending[i].id == id;
		if (!found)
			continue;
		*io = s->pending[i];
		s->pending[i] = s->pending[--s->pending_count];
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static void cancel(void *user, struct hgm *h, uint64_t id)
{
	struct supply *s = user;
	struct hgm_io io;

	(void)h;
	if (take(s, id, &io) && s->kind == KIND_FUNCTION)
		must(hgm_io_done(&io, said(&io, "source: cancelled", -ECANCELED)), "hgm_io_done");
}

/* Answers at once, inside the call, unless the source blocks or is silent. */
static void hurry(void *user, struct hgm *h, uint64_t id)
{
	struct supply *s = user;
	struct random r = { s->seed + id };
	struct hgm_io io;

	(void)h;
	if (s->kind == KIND_FUNCTION && !in_trouble(&s->silent_until) && take(s, id, &io))
		must(hgm_io_done(&io, answer(s, &io, &r)), "hgm_io_done");
}

/* Makes some runs of pages bad, often near the beginning, which small regions have too. */
static void make_bad(struct supply *s, struct random *r)
{
	for (s->bad_runs = 1 + (unsigned int)random_below(r, BAD_RUNS); s->bad_runs;
	     s->bad_runs--) {
		uint64_t at = random_below(r, UINT64_C(1) << random_below(r, 13));
		uint64_t page = random_below(r, ARENAS) * PAGES_MAX + at, end = page + 1;

		end += random_below(r, random_one_in(r, 2) ? 4 : 32);
		s->bad_run[s->bad_runs - 1] = page;
		for (; page < end && page < ALL_PAGES; page++)
			atomic_store(&s->bad[page], s->ever_bad[page] = true);
	}
	s->bad_runs = BAD_RUNS;
}

uint64_t supply_odd_page(const struct supply *s, struct random *r)
{
	return s->bad_runs ? s->bad_run[random_below(r, s->bad_runs)] : UINT64_MAX;
}

static void make_function(struct supply *s, struct random *r)
{
	struct hgm_source_fn_opts o = { .size = sizeof(o), .length = ALL_PAGES * PAGE };

	s->later = random_one_in(r, 2) ? (unsigned int)random_below(r, 17) : 0;
	s->shorter = random_one_in(r, 3) ? (unsigned int)random_below(r, 17) : 0;
	s->slow = random_one_in(r, 2) ? (unsigned int)random_below(r, 17) : 0;
	s->fails = may(ACT_ERRORS) && random_one_in(r, 3) ? (unsigned int)random_below(r, 4) : 0;
	s->cancels = !random_one_in(r, 3);
	s->hurries = random_one_in(r, 2);
	o.flags = s->kind == KIND_BLOCKING ? HGM_SOURCE_BLOCKING : 0;
	o.cancel = s->cancels ? cancel : NULL;
	o.hurry = s->hurries ? hurry : NULL;
	must(hgm_source_fn(&s->source, s->kind == KIND_BLOCKING ? read_blocking : read_function, s,
			   &o),
	     "hgm_source_fn");
	if (may(ACT_ERRORS) && random_one_in(r, 2))
		make_bad(s, r);
	for (unsigned int i = 0; s->kind == KIND_FUNCTION && i < ANSWERERS; i++)
		pthread_create(&s->answerer[i], NULL, answerer, s);
}

/* One provider for all lives, because it costs more than a life. */
static struct provider *lasting(enum provider_kind kind)
{
	static struct provider *providers[PROVIDER_KINDS];

	if (!providers[kind])
		providers[kind] = provider_make(kind, &chaos_contents, ALL_PAGES * PAGE);
	return providers[kind];
}

void supplies_make(struct random *r)
{
	atomic_store(&calm_now, false);
	for (unsigned int i = 0; i < SUPPLIES; i++) {
		static const enum kind kinds[] = { KIND_FUNCTION, KIND_BLOCKING, KIND_FUNCTION,
						   KIND_MEMORY,	  KIND_FILE,	 KIND_FUNCTION };
		struct supply *s = &supplies[i];

		memset(s, 0, sizeof(*s));
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->cond, NULL);
		s->kind = kinds[random_below(r, 6)];
		s->seed = random_next(r);
		if (s->kind == KIND_MEMORY || s->kind == KIND_FILE)
			s->provider =
				lasting(s->kind == KIND_FILE ? PROVIDER_FILE : PROVIDER_MEMORY);
		else
			make_function(s, r);
	}
}

void supplies_free(void)
{
	for (unsigned int i = 0; i < SUPPLIES; i++) {
		struct supply *s = &supplies[i];

		hgm_source_destroy(s->source);
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_mutex_unlock(&s->lock);
		for (unsigned int k = 0; s->kind == KIND_FUNCTION && k < ANSWERERS; k++)
			pthread_join(s->answerer[k], NULL);
		pthread_mutex_destroy(&s->lock);
		pthread_cond_destroy(&s->cond);
	}
}

struct supply *supply_any(struct random *r)
{
	return &supplies[random_below(r, SUPPLIES)];
}

struct hgm_source *supply_source(const struct supply *s)
{
	return s->provider ? provider_source(s->provider) : s->source;
}

const char *supply_name(const struct supply *s)
{
	static const char *const names[] = {
		[KIND_MEMORY] = "memory",
		[KIND_FILE] = "file",
		[KIND_FUNCTION] = "function",
		[KIND_BLOCKING] = "blocking function",
	};

	return names[s->kind];
}

bool supply_ever_bad(const struct supply *s, uint64_t page)
{
	return s->ever_bad[page];
}

/* The source becomes silent or away, or pages that could not be had can be had. */
void supply_misbehave(struct supply *s, struct random *r)
{
	uint64_t until = now_us() + random_below(r, MISHAP_US);

	switch (random_below(r, 6)) {
	case 0:
		for (uint64_t page = 0; page < ALL_PAGES; page++)
			atomic_store_explicit(&s->bad[page], false, memory_order_relaxed);
		break;
	case 1:
		for (uint64_t page = 0; page < ALL_PAGES; page++)
			atomic_store_explicit(&s->bad[page], s->ever_bad[page],
					      memory_order_relaxed);
		break;
	case 2:
	case 3:
		atomic_store(&s->silent_until, until);
		break;
	default:
		atomic_store(&s->away_until, until);
	}
}

void supplies_calm(void)
{
	atomic_store(&calm_now, true);
	for (unsigned int i = 0; i < SUPPLIES; i++)
		for (uint64_t page = 0; page < ALL_PAGES; page++)
			atomic_store_explicit(&supplies[i].bad[page], false, memory_order_relaxed);
}
