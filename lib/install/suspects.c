/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_REMOVE and MADV_DONTNEED raise the same event. The first drops pages of the file, the second
 * only page table entries. For pages that have not arrived, it matters which one it was. So such a
 * range is suspect for a while. A thread that is about to fetch a page of the range checks whether
 * the file has lost pages. In the end the same check decides the range. As long as no page is lost,
 * either none will be, or what is fetched now will be lost with the rest.
 *
 * Memory that was prepared has holes afterwards. Not every page has to be a hole: if the kernel
 * cannot split a huge page at once, it leaves parts of it allocated and zeroed. So one hole where
 * nothing has arrived stands for the whole range. Holes that existed before do not count: they are
 * noted as soon as the event is read.
 *
 * Lazy shmem has holes before and after. But dropping pages changes the file's ctime, and dropping
 * page table entries does not. Making the file's first pages writable, and dropping other pages,
 * change the ctime, too: an MADV_DONTNEED at that time, of pages that have not arrived, is taken
 * for a discard.
 */
#include <string.h>
#include <unistd.h>

#include "discard.h"
#include "installs.h"
#include "kernel/sys.h"
#include "region/hgm.h"
#include "region/holes.h"
#include "suspects.h"
#include "util/bits.h"
#include "util/clock.h"

#define WAIT_NS UINT64_C(200000000)

/* Until when, if that is not known yet: the kernel has not been asked since, or has not said no. */
#define NOT_ASKED UINT64_MAX
#define NOT_BEGUN (UINT64_MAX - 1)

void hgm_suspects_init(struct hgm_suspects *all)
{
	pthread_mutex_init(&all->lock, NULL);
}

void hgm_suspects_destroy(struct hgm_suspects *all)
{
	pthread_mutex_destroy(&all->lock);
}

uint64_t hgm_suspects_ctime(const struct hgm_region *r)
{
	struct hgm_file_kind kind;

	return r->copies && !hgm_sys->file_kind(r->fd, &kind) ? kind.changed_ns : 0;
}

static uint64_t ctime_of(struct hgm_region *r)
{
	uint64_t changed_ns = hgm_suspects_ctime(r);

	if (changed_ns)
		atomic_store_explicit(&r->install->suspects.seen_ns, changed_ns,
				      memory_order_relaxed);
	return changed_ns;
}

/*
 * The ctime when no drop is in progress; 0: it does not matter. A drop changes the ctime last, so a
 * thread that copies a page in during the drop finds it unchanged. But the drop holds the inode's
 * lock from beginning to end, and this lseek(2) takes that lock, too.
 */
static uint64_t settled_ctime_of(struct hgm_region *r)
{
	if (r->copies && r->seek_fd >= 0)
		hgm_sys->lseek(r->seek_fd, (int64_t)(r->fd_offset + r->length - 1), SEEK_DATA);
	return ctime_of(r);
}

void hgm_suspects_look(struct hgm_region *r)
{
	ctime_of(r);
}

/*
 * Do not skip a change that others have made before: an event that was read may not be noted yet
 * although its drop is complete.
 */
void hgm_suspects_dropped(struct hgm_region *r, uint64_t before_ns)
{
	uint64_t after_ns = hgm_suspects_ctime(r);

	if (before_ns && after_ns)
		atomic_compare_exchange_strong_explicit(&r->install->suspects.seen_ns, &before_ns,
							after_ns, memory_order_relaxed,
							memory_order_relaxed);
}

/*
 * Has the file changed since the event? @changed_ns is its ctime after the event. Of two changes in
 * one tick only the first is visible. The second is taken for a drop if the first was one.
 */
static bool has_changed(struct hgm_region *r, const struct hgm_suspect *s, uint64_t changed_ns)
{
	if (changed_ns < s->read_ns)
		return false;
	if (changed_ns != s->seen_ns)
		atomic_store_explicit(&r->install->suspects.dropped_ns, changed_ns,
				      memory_order_relaxed);
	else if (changed_ns !=
		 atomic_load_explicit(&r->install->suspects.dropped_ns, memory_order_relaxed))
		return false;
	return true;
}

/*
 * Are there holes among the pages of a range that have not arrived? A call of hgm_region_discard()
 * claims a page before the page becomes a hole, so it is not taken for a drop of the range.
 */
static bool has_holes(const struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;

	while (page < end) {
		uint64_t word = page / HGM_PAGES_PER_WORD;
		uint64_t next = (word + 1) * HGM_PAGES_PER_WORD;
		uint64_t want;

		next = next < end ? next : end;
		want = hgm_map_absent_word(r->map, word) &
		       hgm_bits_of_range(page, next - page, word);
		if (want)
			want &= hgm_holes_prepared(r, page, next - page);
		/* Pages that were discarded while they were fetched, and released, do not count. */
		want &= ~hgm_map_discarded_word(r->map, word);
		if (want & hgm_map_absent_word(r->map, word))
			return true;
		page = next;
	}
	return false;
}

/* Was a suspect range dropped? Looks at [page, page + pages) of it only. */
static bool was_dropped(struct hgm_region *r, const struct hgm_suspect *s, uint64_t changed_ns,
			uint64_t page, uint64_t pages)
{
	return r->copies ? has_changed(r, s, changed_ns) : has_holes(r, page, pages);
}

/* Locked. */
static void take_out(struct hgm_suspects *all, unsigned int i)
{
	unsigned int count = atomic_load_explicit(&all->count, memory_order_relaxed) - 1;

	memmove(&all->range[i], &all->range[i + 1], (count - i) * sizeof(all->range[0]));
	atomic_store_explicit(&all->count, count, memory_order_release);
}

/* Take out the first range whose time is up at @now_ns, or any range if that is 0. */
static bool take_old(struct hgm_suspects *all, uint64_t now_ns, struct hgm_suspect *out)
{
	bool found = false;

	pthread_mutex_lock(&all->lock);
	for (unsigned int i = 0; i < atomic_load_explicit(&all->count, memory_order_relaxed); i++) {
		if (now_ns && all->range[i].until_ns > now_ns)
			continue;
		*out = all->range[i];
		take_out(all, i);
		found = true;
		break;
	}
	pthread_mutex_unlock(&all->lock);
	return found;
}

static void decide(struct hgm_region *r, const struct hgm_suspect *s)
{
	if (was_dropped(r, s, settled_ctime_of(r), s->page, s->pages))
		hgm_discard_pages(r, s->page, s->pages);
}

/* Note holes that others have punched into the file without an event. */
static void note_old_holes(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;

	while (page < end) {
		uint64_t word = page / HGM_PAGES_PER_WORD;
		uint64_t next = (word + 1) * HGM_PAGES_PER_WORD;

		next = next < end ? next : end;
		if (hgm_map_absent_word(r->map, word) & hgm_bits_of_range(page, next - page, word))
			hgm_discard_holes(r, page, next - page);
		page = next;
	}
}

void hgm_suspects_add(struct hgm_region *r, uint64_t page, uint64_t pages, uint64_t read_ns)
{
	struct hgm_suspects *all = &r->install->suspects;
	struct hgm_suspect s = {
		.page = page,
		.pages = pages,
		.seen_ns = atomic_load_explicit(&all->seen_ns, memory_order_relaxed),
		.read_ns = read_ns,
		.until_ns = NOT_ASKED,
	};
	struct hgm_suspect old;
	unsigned int count;

	note_old_holes(r, page, pages);
	if (atomic_load_explicit(&all->count, memory_order_relaxed) == HGM_SUSPECTS_MAX &&
	    take_old(all, 0, &old))
		decide(r, &old);
	pthread_mutex_lock(&all->lock);
	count = atomic_load_explicit(&all->count, memory_order_relaxed);
	if (count < HGM_SUSPECTS_MAX) {
		all->range[count] = s;
		atomic_store_explicit(&all->count, count + 1, memory_order_release);
	}
	pthread_mutex_unlock(&all->lock);
}

/* Copy the ranges that contain pages of [page, page + pages). Returns how many. */
static unsigned int find(struct hgm_suspects *all, uint64_t page, uint64_t pages,
			 struct hgm_suspect *found)
{
	unsigned int n = 0;

	pthread_mutex_lock(&all->lock);
	for (unsigned int i = 0; i < atomic_load_explicit(&all->count, memory_order_relaxed); i++) {
		const struct hgm_suspect *s = &all->range[i];

		if (s->page < page + pages && page < s->page + s->pages)
			found[n++] = *s;
	}
	pthread_mutex_unlock(&all->lock);
	return n;
}

void hgm_suspects_hole(struct hgm_region *r, uint64_t page)
{
	struct hgm_suspect found[HGM_SUSPECTS_MAX];
	unsigned int n;

	if (!atomic_load_explicit(&r->install->suspects.count, memory_order_acquire))
		return;
	n = find(&r->install->suspects, page, 1, found);
	for (unsigned int i = 0; i < n; i++)
		hgm_discard_pages(r, found[i].page, found[i].pages);
}

bool hgm_suspects_check(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_suspects *all = &r->install->suspects;
	struct hgm_suspect found[HGM_SUSPECTS_MAX];
	uint64_t changed_ns;
	bool unknown = false;
	unsigned int n;

	if (!atomic_load_explicit(&all->count, memory_order_acquire))
		return false;
	n = find(all, page, pages, found);
	changed_ns = n ? settled_ctime_of(r) : 0; /* once, after all of them */
	for (unsigned int i = 0; i < n; i++) {
		uint64_t from = found[i].page > page ? found[i].page : page;
		uint64_t end = found[i].page + found[i].pages;

		end = end < page + pages ? end : page + pages;
		if (was_dropped(r, &found[i], changed_ns, from, end - from))
			hgm_discard_pages(r, found[i].page, found[i].pages);
		else
			unknown = true;
	}
	return unknown;
}

/* A thread whose event was read may not have dropped anything yet, because it got no CPU. */
static bool is_changing(const struct hgm_region *r)
{
	for (unsigned int i = 0; i < r->view.space->stripes; i++)
		if (hgm_uffd_changing(r->view.space->uffd[i]))
			return true;
	return false;
}

/*
 * The kernel says that nothing changes as soon as the thread runs again, and that is before it
 * drops pages: wait for WAIT_NS from the first time that it says so, however late this thread asks.
 */
static void wait_from(struct hgm_suspects *all, bool changing, uint64_t now_ns)
{
	pthread_mutex_lock(&all->lock);
	for (unsigned int i = 0; i < atomic_load_explicit(&all->count, memory_order_relaxed); i++)
		if (changing)
			all->range[i].until_ns = NOT_BEGUN;
		else if (all->range[i].until_ns == NOT_BEGUN)
			all->range[i].until_ns = now_ns + WAIT_NS;
	pthread_mutex_unlock(&all->lock);
}

/* The kernel is asked now: what it says does not hold for ranges that are added from now on. */
static void ask(struct hgm_suspects *all)
{
	pthread_mutex_lock(&all->lock);
	for (unsigned int i = 0; i < atomic_load_explicit(&all->count, memory_order_relaxed); i++)
		if (all->range[i].until_ns == NOT_ASKED)
			all->range[i].until_ns = NOT_BEGUN;
	pthread_mutex_unlock(&all->lock);
}

bool hgm_suspects_age(struct hgm_region *r)
{
	struct hgm_suspects *all = &r->install->suspects;
	struct hgm_suspect s;

	while (atomic_load_explicit(&all->count, memory_order_acquire)) {
		uint64_t now_ns;
		bool changing;

		ask(all);
		changing = is_changing(r);
		now_ns = hgm_now_ns();
		wait_from(all, changing, now_ns);
		if (changing || !take_old(all, now_ns, &s))
			break;
		decide(r, &s);
	}
	return atomic_load_explicit(&all->count, memory_order_acquire);
}
