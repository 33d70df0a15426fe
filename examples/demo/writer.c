/* SPDX-License-Identifier: 0BSD */
/*
 * Schedules and records of the guest that writes: see writer.h
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../random.h"
#include "writer.h"

_Static_assert(offsetof(struct writer_box, log) == BOX_LOG, "writer_guest.S");
_Static_assert(offsetof(struct writer_box, stop) == BOX_WRITE_STOP, "writer_guest.S");
_Static_assert(offsetof(struct writer_box, wait_mask) == BOX_WAIT_MASK, "writer_guest.S");
_Static_assert(offsetof(struct writer_box, sequence) == BOX_SEQUENCE, "writer_guest.S");
_Static_assert(offsetof(struct writer_box, slow_writes) == BOX_SLOW_WRITES, "writer_guest.S");
_Static_assert(offsetof(struct writer_box, late) == BOX_LATE, "writer_guest.S");
_Static_assert(sizeof(struct writer_box) <= BOX_SIZE, "writer_guest.S");
_Static_assert((RECORD_WORDS - 1) * RECORD_STRIDE <= GUEST_PAGE - 4, "a record fits into a page");

/* One in this many pages is hot. The hot pages get as many writes as all others together. */
#define HOT_SHARE 16

struct writer_box *writer_box(const struct writer *w, int cpu)
{
	return (struct writer_box *)(w->low + GUEST_BOXES + (size_t)cpu * BOX_SIZE);
}

uint32_t writer_sequence(const struct writer *w, int cpu)
{
	return __atomic_load_n(&writer_box(w, cpu)->sequence, __ATOMIC_ACQUIRE);
}

static uint32_t *words_at(const struct writer *w, uint32_t address)
{
	return (uint32_t *)(w->low + address);
}

static uint32_t *log_word(const struct writer *w, int cpu, uint32_t index)
{
	return words_at(w, writer_box(w, cpu)->log) + index % LOG_WORDS;
}

uint32_t writer_log(const struct writer *w, int cpu, uint32_t index)
{
	return __atomic_load_n(log_word(w, cpu, index), __ATOMIC_RELAXED);
}

/* List the CPU's pages, shuffled: first the hot ones, then the others. */
static uint32_t *pages_of(int cpu, uint32_t n, uint64_t *seed)
{
	uint32_t *page = calloc(n, sizeof(*page));
	uint32_t i, other, was;

	if (!page)
		return NULL;
	for (i = 0; i < n; i++)
		page[i] = GUEST_MEMORY + (i * GUEST_CPUS + cpu) * GUEST_PAGE;
	for (i = n - 1; i > 0; i--) {
		other = random_below(seed, i + 1);
		was = page[i];
		page[i] = page[other];
		page[other] = was;
	}
	return page;
}

static int make_schedule(struct writer *w, int cpu, uint32_t share, uint64_t *seed)
{
	uint32_t *schedule = words_at(w, writer_box(w, cpu)->first);
	uint32_t *page = pages_of(cpu, share, seed), hot = share / HOT_SHARE, i;

	if (!page)
		return -ENOMEM;
	for (i = 0; i < w->scheduled; i++)
		schedule[i] = i % 2 ? page[random_below(seed, hot)] : page[hot + i / 2];
	/* Write each hot page at least once, so that a round changes every page. */
	for (i = 0; i < hot; i++)
		schedule[2 * i + 1] = page[i];
	free(page);
	return 0;
}

int writer_init(struct writer *w, void *memory, uint64_t length, uint64_t seed)
{
	uint32_t share = length / GUEST_PAGE / GUEST_CPUS, next = GUEST_TABLES;
	int cpu, rc = 0;

	if (!length || length % (UINT64_C(2) << 20) || length > GUEST_MAX_LENGTH)
		return -EINVAL;
	*w = (struct writer){
		.memory = memory,
		.length = length,
		.scheduled = 2 * (share - share / HOT_SHARE),
		.ticks_per_us = 1000.0 / (1 << GUEST_TICK_SHIFT),
	};
	w->low_size = GUEST_TABLES + (size_t)GUEST_CPUS * (w->scheduled + LOG_WORDS) * 4;
	w->low_size = (w->low_size + GUEST_PAGE - 1) / GUEST_PAGE * GUEST_PAGE;
	w->low =
		mmap(NULL, w->low_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->low == MAP_FAILED) {
		w->low = NULL;
		return -errno;
	}
	for (cpu = 0; !rc && cpu < GUEST_CPUS; cpu++) {
		struct writer_box *box = writer_box(w, cpu);

		box->first = next;
		box->end = box->log = next + w->scheduled * 4;
		box->wait_mask = UINT32_MAX;
		next = box->log + LOG_WORDS * 4;
		rc = make_schedule(w, cpu, share, &seed);
	}
	if (rc)
		writer_free(w);
	return rc;
}

void writer_free(struct writer *w)
{
	if (w->low)
		munmap(w->low, w->low_size);
	w->low = NULL;
}

static uint32_t address_of(const struct writer *w, int cpu, uint32_t sequence)
{
	return words_at(w, writer_box(w, cpu)->first)[(sequence - 1) % w->scheduled];
}

uint32_t writer_page(const struct writer *w, int cpu, uint32_t sequence)
{
	return (address_of(w, cpu, sequence) - GUEST_MEMORY) / GUEST_PAGE;
}

static void write_record(volatile uint32_t *word, uint32_t frame, uint32_t sequence)
{
	uint32_t pattern = sequence * RECORD_FACTOR + frame;
	int i;

	word[0] = frame;
	word[RECORD_STRIDE / 4] = sequence;
	for (i = 2; i < RECORD_WORDS; i++)
		word[i * RECORD_STRIDE / 4] = pattern += RECORD_ADDEND;
}

void writer_record(void *contents, uint32_t page, uint32_t sequence)
{
	write_record(contents, GUEST_MEMORY / GUEST_PAGE + page, sequence);
}

uint32_t *writer_last(const struct writer *w, const uint32_t *sequence)
{
	uint32_t *last = calloc(w->length / GUEST_PAGE, sizeof(*last));
	uint32_t from, n;
	int cpu;

	for (cpu = 0; last && cpu < GUEST_CPUS; cpu++) {
		from = sequence[cpu] > w->scheduled ? sequence[cpu] - w->scheduled : 0;
		for (n = from + 1; n && n <= sequence[cpu]; n++)
			last[writer_page(w, cpu, n)] = n;
	}
	return last;
}

/* Return the time in units of 2^GUEST_TICK_SHIFT nanoseconds. */
static uint32_t now_ticks(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((uint64_t)t.tv_sec * 1000000000 + t.tv_nsec) >> GUEST_TICK_SHIFT;
}

void writer_write(struct writer *w, int cpu)
{
	struct writer_box *box = writer_box(w, cpu);
	uint32_t sequence = box->sequence + 1, address = address_of(w, cpu, sequence);

	write_record((void *)(w->memory + (address - GUEST_MEMORY)), address / GUEST_PAGE,
		     sequence);
	__atomic_store_n(&box->sequence, sequence, __ATOMIC_RELEASE);
}

static void log_write(struct writer *w, int cpu, uint32_t ticks)
{
	struct writer_box *box = writer_box(w, cpu);
	uint32_t n = box->slow_writes;

	if ((int32_t)ticks < (int32_t)__atomic_load_n(&box->slow, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(log_word(w, cpu, n), ticks, __ATOMIC_RELAXED);
	__atomic_store_n(&box->slow_writes, n + 1, __ATOMIC_RELEASE);
}

int writer_by_thread(struct writer *w, int cpu, const int *until)
{
	struct writer_box *box = writer_box(w, cpu);
	uint32_t from = box->ended ? box->ended : now_ticks() - box->late, end;

	for (;;) {
		writer_write(w, cpu);
		end = now_ticks();
		log_write(w, cpu, end - from);
		box->ended = from = end;
		if (__atomic_load_n(&box->stop, __ATOMIC_ACQUIRE))
			return 0;
		if (!(box->sequence & box->wait_mask))
			return 1;
		if (__atomic_load_n(until, __ATOMIC_ACQUIRE))
			return -EINTR;
	}
}
