/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that read all pages, write to those that they own, and know what each page must hold.
 */
#include "chaos.h"

#include <signal.h>

#define PAUSE_US SMALLER(100000, 400000)

/* Checks whether a page that cannot be touched may be so. */
static void check_signal(struct arena *a, uint64_t page, uint64_t truth, int sig, const char *what)
{
	if (atomic_load(&a->state) != ARENA_LIVE)
		return;
	if (sig == SIGBUS && may_be_poisoned(a, page, truth)) {
		atomic_fetch_add(&tally.poisoned, 1);
		return;
	}
	wrong(a, page, "%s raised %s", what, sig == SIGBUS ? "SIGBUS" : "SIGSEGV");
}

/*
 * The truth did not change while the page was read, except for the marks of a discard. During a
 * discard, each word may be dropped already.
 */
static void read_page(struct actor *self, struct arena *a, uint64_t page)
{
	uint64_t copy[WORDS], before = truth_of(a, page), after;
	int sig, word;

	if (before & WRITING)
		return;
	does(self, "read", a->index, page, 1);
	sig = page_copy(copy, atomic_load(&a->addr) + page * PAGE);
	did(self);
	if (sig) {
		check_signal(a, page, before, sig, "a read");
		return;
	}
	atomic_thread_fence(memory_order_seq_cst);
	after = truth_of(a, page);
	if (atomic_load(&a->state) != ARENA_LIVE)
		return;
	if (after != before &&
	    (after != (before | DROPPING) && !(before & DROPPING && is_zero(after))))
		return;
	atomic_fetch_add_explicit(&tally.reads, 1, memory_order_relaxed);
	word = words_wrong(a, page, before, (before | after) & (DROPPING | MIXED), copy);
	if (word >= 0)
		wrong_page(a, page, before, word, copy, "a read");
}

static uint64_t begin_write(struct actor *self, struct arena *a, uint64_t page, bool part)
{
	uint64_t gen = next_generation();
	uint64_t before = truth_of(a, page), after;

	do {
		after = gen | WRITING | (before & DROPPING);
		if (before & DROPPING)
			after |= MIXED;
		if (part && before == SOURCE)
			after |= PART_SOURCE;
		if (part && is_zero(before) && !(before & ~(GENERATION | ZEROED)))
			after |= PART_ZERO;
	} while (!atomic_compare_exchange_weak(&a->truth[page], &before, after));
	note(a, self->number, "write", page, 1, gen);
	return after;
}

/* Not even the first word could be written. The page is as it was, unless it is being discarded. */
static void write_failed(struct arena *a, uint64_t page, uint64_t before)
{
	uint64_t now = truth_of(a, page), then;

	do
		then = before | (now & (DROPPING | MIXED));
	while (!atomic_compare_exchange_weak(&a->truth[page], &now, then));
}

static void write_page(struct actor *self, struct arena *a, uint64_t page)
{
	bool part = random_one_in(&self->random, 3);
	bool by_call = !part && random_one_in(&self->random, 8);
	char *at = atomic_load(&a->addr) + page * PAGE;
	uint64_t words[WORDS], before = truth_of(a, page);
	uint64_t truth = begin_write(self, a, page, part);
	int sig;

	words_expected(a, page, truth, words);
	does(self, by_call ? "write by read(2)" : "write", a->index, page, 1);
	sig = by_call ? page_store_by_call(at, words, self->number)
		      : page_store(at, words,
				   truth & (PART_SOURCE | PART_ZERO) ? PART_WORDS : WORDS);
	did(self);
	note(a, self->number, sig ? "write failed" : "written", page, 1, truth & GENERATION);
	if (sig) {
		check_signal(a, page, before & ~(WRITING | DROPPING | MIXED), sig, "a write");
		write_failed(a, page, before & ~DROPPING);
		return;
	}
	atomic_thread_fence(memory_order_seq_cst);
	atomic_fetch_and(&a->truth[page], ~WRITING);
	atomic_fetch_add_explicit(&tally.writes, 1, memory_order_relaxed);
}

static void write_unpaused(struct actor *self, struct arena *a, uint64_t page)
{
	_Atomic bool *writes = &life.writes[self->number];

	atomic_store(writes, true);
	if (atomic_load(&life.paused))
		nap_us(100);
	else
		write_page(self, a, page);
	atomic_store(writes, false);
}

static void touch_some(struct actor *self, struct arena *a)
{
	uint64_t page = arena_page(a, &self->random);
	uint64_t left = 1 + random_below(&self->random, 32);
	bool write = random_one_in(&self->random, 3);

	for (; left && page < a->pages; left--, page++) {
		if (atomic_load(&a->state) != ARENA_LIVE || atomic_load(&life.touchers_stop))
			return;
		if (write && page / a->run % TOUCHERS == self->number)
			write_unpaused(self, a, page);
		else
			read_page(self, a, page);
	}
}

void *toucher(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.touchers_stop)) {
		struct arena *a = &life.arena[random_below(&self->random, ARENAS)];

		if (atomic_load(&a->state) != ARENA_LIVE) {
			nap_us(100);
			continue;
		}
		atomic_fetch_add(&a->pins, 1);
		if (atomic_load(&a->state) == ARENA_LIVE)
			touch_some(self, a);
		atomic_fetch_sub(&a->pins, 1);
	}
	return NULL;
}

bool pause_writers(void)
{
	uint64_t end = now_us() + PAUSE_US;

	atomic_fetch_add(&life.paused, 1);
	for (unsigned int i = 0; i < TOUCHERS; i++) {
		while (atomic_load(&life.writes[i])) {
			if (now_us() > end)
				return false;
			nap_us(50);
		}
	}
	return true;
}

void resume_writers(void)
{
	atomic_fetch_sub(&life.paused, 1);
}

/* Called when no thread accesses the page any more. */
void check_page(struct arena *a, uint64_t page, const char *when)
{
	uint64_t copy[WORDS], truth = truth_of(a, page);
	int sig = page_copy(copy, a->ram.addr + page * PAGE);
	int word;

	if (sig)
		wrong(a, page, "%s: %s", when, sig == SIGBUS ? "SIGBUS" : "SIGSEGV");
	if (truth & WRITING)
		return;
	word = words_wrong(a, page, truth, truth & (MIXED | DROPPING), copy);
	if (word >= 0)
		wrong_page(a, page, truth, word, copy, when);
}
