/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory is given back, by the call and by all other means that the manual allows. It is also
 * unmapped without being dropped.
 */
#include "chaos.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

enum means {
	MEANS_CALL,
	MEANS_ADVICE,
	MEANS_PUNCH,
};

static const char *const means_names[] = {
	[MEANS_CALL] = "hgm_region_discard",
	[MEANS_ADVICE] = "madvise",
	[MEANS_PUNCH] = "fallocate",
};

struct drop {
	struct arena *a;
	uint64_t page, pages;
	enum means means;
};

static bool is_anon(enum backing backing)
{
	return backing == BACKING_ANON || backing == BACKING_MAPPING_ANON;
}

static bool is_lazy(enum backing backing)
{
	return backing == BACKING_SHMEM_LAZY || backing == BACKING_FD_LAZY ||
	       backing == BACKING_MAPPING_LAZY;
}

static bool has_arrived(const struct arena *a)
{
	return info_of(a->ram.region).present_bytes == a->pages * PAGE;
}

/*
 * False for drops after which nobody can know the contents. libhgm_discard(7) says what becomes of
 * them.
 */
static bool can_know(const struct drop *d)
{
	uint64_t block = backing_block(d->a->backing) / PAGE;

	/*
	 * The kernel drops only whole huge pages of hugetlb, and does not report the rest. Of pages
	 * that have not arrived, a touch finds that they were dropped, and a snapshot does not.
	 */
	if (d->a->backing >= BACKINGS_SMALL &&
	    (d->page % block || d->pages % block || (may(ACT_SNAPSHOT) && !has_arrived(d->a))))
		return false;
	/* A hole in the file raises no event. Pages that have not arrived may still be fetched. */
	if (d->means == MEANS_PUNCH)
		return d->a->ram.fd >= 0 && has_arrived(d->a);
	/*
	 * If the kernel cannot split a huge page at once, it leaves pages allocated and zeroed.
	 * They look as if they had been prepared, and had not arrived.
	 */
	if (!is_anon(d->a->backing) && !is_lazy(d->a->backing) && d->a->backing < BACKINGS_SMALL)
		return has_arrived(d->a);
	/*
	 * Poison is an entry of the page table, which MADV_REMOVE of files leaves as it is.
	 */
	for (uint64_t page = d->page; !is_anon(d->a->backing) && page < d->page + d->pages; page++)
		if (may_be_poisoned(d->a, page, SOURCE))
			return false;
	/*
	 * MADV_FREE is not tried. It drops pages when the kernel decides to, so their truth is not
	 * known.
	 */
	return true;
}

static int drop(const struct drop *d)
{
	uint64_t offset = d->page * PAGE, length = d->pages * PAGE;
	char *at = d->a->ram.addr + offset;
	int rc;

	switch (d->means) {
	case MEANS_ADVICE:
		rc = madvise(at, length, is_anon(d->a->backing) ? MADV_DONTNEED : MADV_REMOVE);
		return rc ? -errno : 0;
	case MEANS_PUNCH:
		rc = fallocate(d->a->ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)(d->a->ram.fd_offset + offset), (off_t)length);
		return rc ? -errno : 0;
	default:
		return hgm_region_discard(d->a->ram.region, offset, length);
	}
}

/* Dirty tracking does not see holes that are punched. */
static void mark(const struct drop *d)
{
	if (d->means != MEANS_PUNCH)
		return;
	pthread_mutex_lock(&d->a->dirty_lock);
	if (d->a->dirty)
		must(hgm_dirty_mark(d->a->dirty, d->page * PAGE, d->pages * PAGE),
		     "hgm_dirty_mark");
	pthread_mutex_unlock(&d->a->dirty_lock);
}

static void begin_drop(const struct drop *d)
{
	for (uint64_t page = d->page; page < d->page + d->pages; page++) {
		uint64_t before = truth_of(d->a, page), after;

		for (;;) {
			if (before & DROPPING) { /* by the other discarder */
				sched_yield();
				before = truth_of(d->a, page);
				continue;
			}
			after = before | DROPPING | (before & WRITING ? MIXED : 0);
			if (atomic_compare_exchange_weak(&d->a->truth[page], &before, after))
				break;
		}
		if (d->means != MEANS_CALL)
			atomic_fetch_add(&d->a->drops[page], 1);
	}
}

static void end_drop(const struct drop *d, bool dropped)
{
	for (uint64_t page = d->page; page < d->page + d->pages; page++) {
		uint64_t before = truth_of(d->a, page), after, zero = next_generation() | ZEROED;

		do
			after = before & MIXED || !dropped ? before & ~DROPPING : zero;
		while (!atomic_compare_exchange_weak(&d->a->truth[page], &before, after));
	}
}

static void discard(struct actor *self, const struct drop *d)
{
	int rc;

	note(d->a, self->number, means_names[d->means], d->page, d->pages, 0);
	does(self, means_names[d->means], d->a->index, d->page, d->pages);
	begin_drop(d);
	mark(d);
	rc = drop(d);
	mark(d);
	did(self);
	note(d->a, self->number, "discarded", d->page, d->pages, (uint64_t)rc);
	/* A watch may make writers wait. A thread that calls hgm_region_discard() is a writer. */
	if (rc && (rc != -EBUSY || d->means != MEANS_CALL))
		wrong(d->a, d->page, "%s of %llu pages: %s: %s", means_names[d->means],
		      (unsigned long long)d->pages, strerrorname_np(-rc), hgm_errmsg());
	end_drop(d, !rc);
	atomic_fetch_add(d->means == MEANS_CALL ? &tally.discards : &tally.drops, 1);
}

/*
 * The page table entries of files can be dropped, and the contents stay. This is not done to lazy
 * memory that is arriving. Together with other changes of the file at the same time, the library
 * takes it for a discard, as libhgm_discard(7) says.
 */
static void unmap(struct actor *self, const struct drop *d)
{
	struct arena *a = d->a;

	if (is_anon(a->backing) || (is_lazy(a->backing) && !has_arrived(a)))
		return;
	note(a, self->number, "unmap", d->page, d->pages, 0);
	does(self, "MADV_DONTNEED", a->index, d->page, d->pages);
	if (madvise(a->ram.addr + d->page * PAGE, d->pages * PAGE, MADV_DONTNEED))
		wrong(a, d->page, "MADV_DONTNEED: %s", strerrorname_np(errno));
	did(self);
	atomic_fetch_add(&tally.remaps, 1);
}

static void any_range(struct random *r, struct drop *d)
{
	uint64_t most = UINT64_C(1) << random_below(r, 13);
	uint64_t block = backing_block(d->a->backing) / PAGE;

	d->page = arena_page(d->a, r);
	d->pages = 1 + random_below(r, most);
	if (d->a->pages >= block && random_one_in(r, d->a->backing >= BACKINGS_SMALL ? 2 : 4)) {
		d->page = d->page / block * block;
		d->pages = (d->pages + block - 1) / block * block;
	}
	if (d->pages > d->a->pages - d->page)
		d->pages = d->a->pages - d->page;
}

static void discard_any(struct actor *self)
{
	struct random *r = &self->random;
	struct drop d = { .a = arena_use(r) };

	if (!d.a)
		return;
	any_range(r, &d);
	d.means = !may(ACT_RAW) ? MEANS_CALL : (enum means)random_below(r, 3);
	if (!may(ACT_DISCARD) && d.means == MEANS_CALL)
		d.means = MEANS_ADVICE;
	if (may(ACT_RAW) && random_one_in(r, 6) && (d.a->backing < BACKINGS_SMALL || can_know(&d)))
		unmap(self, &d);
	else if (d.means == MEANS_CALL || can_know(&d))
		discard(self, &d);
	else if (may(ACT_DISCARD))
		discard(self, &(struct drop){ d.a, d.page, d.pages, MEANS_CALL });
	arena_release(d.a);
}

void *discarder(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.actors_stop)) {
		discard_any(self);
		nap_us((unsigned int)random_below(&self->random, 4000));
	}
	return NULL;
}
