/* SPDX-License-Identifier: 0BSD */
/*
 * Tables, thread and check of the walk: see walk.h
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../random.h"
#include "walk.h"

_Static_assert(sizeof(struct walk_visit) == VISIT_SIZE, "guest.S");
_Static_assert(offsetof(struct walk_visit, ticks) == VISIT_TICKS, "guest.S");
_Static_assert(offsetof(struct walk_box, phase) == BOX_PHASE, "guest.S");
_Static_assert(offsetof(struct walk_box, pass[1]) == BOX_PASS(1), "guest.S");
_Static_assert(offsetof(struct walk_pass, order) == PASS_ORDER, "guest.S");
_Static_assert(sizeof(struct walk_box) <= BOX_SIZE, "guest.S");
_Static_assert(GUEST_STRIDE * 2 == GUEST_WRITTEN, "the written word is one that is read");

/* There is one list of visits for each pass whose times are looked at. */
enum {
	LISTS = PASS_LAST + 1
};

struct walk_box *walk_box(const struct walk *w, int cpu)
{
	return (struct walk_box *)(w->low + GUEST_BOXES + (size_t)cpu * BOX_SIZE);
}

static struct walk_visit *visits_at(const struct walk *w, uint32_t address)
{
	return (struct walk_visit *)(w->low + address);
}

const struct walk_visit *walk_visits(const struct walk *w, int cpu, int pass, size_t *count)
{
	const struct walk_pass *p = &walk_box(w, cpu)->pass[pass];

	*count = (p->end - p->first) / VISIT_SIZE;
	return visits_at(w, p->first);
}

static uint32_t *shuffled(uint32_t n, uint64_t seed)
{
	uint32_t *order = calloc(n, sizeof(*order));
	uint32_t i, other, was;

	if (!order)
		return NULL;
	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n - 1; i > 0; i--) {
		other = random_below(&seed, i + 1);
		was = order[i];
		order[i] = order[other];
		order[other] = was;
	}
	return order;
}

int walk_init(struct walk *w, void *memory, uint64_t length, uint64_t seed)
{
	uint32_t share = length / GUEST_PAGE / GUEST_CPUS, i;
	uint32_t list_size = share * VISIT_SIZE, next = GUEST_TABLES, *order;
	int cpu, pass;

	if (!length || length % (UINT64_C(1) * GUEST_CPUS * GUEST_PAGE) ||
	    length > GUEST_MAX_LENGTH)
		return -EINVAL;
	*w = (struct walk){
		.low_size = GUEST_TABLES + (size_t)GUEST_CPUS * LISTS * list_size,
		.memory = memory,
		.length = length,
		.ticks_per_us = 1000, /* nanoseconds; vmm.c sets another value for KVM */
	};
	w->low_size = (w->low_size + GUEST_PAGE - 1) / GUEST_PAGE * GUEST_PAGE;
	w->low =
		mmap(NULL, w->low_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->low == MAP_FAILED)
		return -errno;
	order = shuffled(share * GUEST_CPUS, seed);
	if (!order) {
		walk_free(w);
		return -ENOMEM;
	}
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		struct walk_box *box = walk_box(w, cpu);

		for (pass = 0; pass < LISTS; pass++, next += list_size) {
			struct walk_visit *visit = visits_at(w, next);

			box->pass[pass].first = next;
			box->pass[pass].end = next + list_size;
			for (i = 0; i < share; i++)
				visit[i].page =
					GUEST_MEMORY + order[i * GUEST_CPUS + cpu] * GUEST_PAGE;
		}
		box->pass[PASS_ALL] = box->pass[PASS_LAST];
	}
	free(order);
	return 0;
}

void walk_free(struct walk *w)
{
	if (w->low)
		munmap(w->low, w->low_size);
	w->low = NULL;
}

/*
 * Return true if the median warm touch took less than a microsecond. It does not where instructions
 * are emulated.
 */
static bool is_fast(const struct walk *w, int cpu)
{
	size_t count, quick = 0, i;
	const struct walk_visit *v = walk_visits(w, cpu, PASS_WARM, &count);

	if (!__atomic_load_n(&walk_box(w, cpu)->rounds, __ATOMIC_ACQUIRE))
		return false; /* not known yet */
	for (i = 0; i < count; i++)
		quick += v[i].ticks < w->ticks_per_us;
	return quick > count / 2;
}

void walk_stop(struct walk *w)
{
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		struct walk_box *box = walk_box(w, cpu);

		box->all = is_fast(w, cpu);
		__atomic_store_n(&box->stop, 1, __ATOMIC_RELEASE);
	}
}

const char *walk_phase(const struct walk *w, int cpu)
{
	switch (__atomic_load_n(&walk_box(w, cpu)->phase, __ATOMIC_ACQUIRE)) {
	case PASS_COLD:
		return "the first reads";
	case PASS_WARM:
		return "the second reads";
	case PASS_LAST:
		return "reading what it wrote";
	case PASS_ALL:
		return "reading every word";
	case PHASE_WRITE:
		return "writing";
	default:
		return "done";
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void set_phase(struct walk_box *box, uint32_t phase)
{
	__atomic_store_n(&box->phase, phase, __ATOMIC_RELEASE);
}

static void read_pass(struct walk *w, struct walk_box *box, int pass)
{
	struct walk_pass *p = &box->pass[pass];
	struct walk_visit *v = visits_at(w, p->first), *end = visits_at(w, p->end);
	uint32_t words = 0, order = 0;

	set_phase(box, pass);
	for (; v < end; v++) {
		volatile uint32_t *page = (uint32_t *)(w->memory + (v->page - GUEST_MEMORY));
		uint64_t before = now_ns(), took;
		int i;

		words += page[0];
		took = now_ns() - before;
		v->ticks = took < UINT32_MAX ? took : UINT32_MAX;
		for (i = 1; i < GUEST_WORDS; i++)
			words += page[i * GUEST_STRIDE / 4];
		order += words;
	}
	p->words = words;
	p->order = order;
}

static void write_pass(struct walk *w, struct walk_box *box)
{
	struct walk_pass *p = &box->pass[PASS_LAST];
	struct walk_visit *v = visits_at(w, p->first), *end = visits_at(w, p->end);

	set_phase(box, PHASE_WRITE);
	for (; v < end; v++) {
		volatile uint32_t *page = (uint32_t *)(w->memory + (v->page - GUEST_MEMORY));

		page[GUEST_WRITTEN / 4] += GUEST_ADDEND;
	}
	__atomic_store_n(&box->rounds, box->rounds + 1, __ATOMIC_RELEASE);
}

/*
 * Sum up every word of every page. If @contents is given, sum up what the words must be after
 * box->rounds rounds of writes.
 */
static void read_all(const struct walk *w, const struct walk_box *box, const uint8_t *contents,
		     uint32_t *words, uint32_t *order)
{
	const struct walk_pass *p = &box->pass[PASS_ALL];
	const struct walk_visit *v = visits_at(w, p->first), *end = visits_at(w, p->end);
	uint32_t added = contents ? box->rounds * GUEST_ADDEND : 0;
	const uint8_t *from = contents ? contents : w->memory;
	int i;

	*words = *order = 0;
	for (; v < end; v++) {
		const uint32_t *page = (const uint32_t *)(from + (v->page - GUEST_MEMORY));

		for (i = 0; i < GUEST_PAGE / 4; i++) {
			*words += page[i] + (i == GUEST_WRITTEN / 4 ? added : 0);
			*order += *words;
		}
	}
}

void walk_by_thread(struct walk *w, int cpu)
{
	struct walk_box *box = walk_box(w, cpu);
	struct walk_pass *all = &box->pass[PASS_ALL];

	read_pass(w, box, PASS_COLD);
	read_pass(w, box, PASS_WARM);
	do {
		write_pass(w, box);
		read_pass(w, box, PASS_LAST);
	} while (!__atomic_load_n(&box->stop, __ATOMIC_ACQUIRE));
	if (box->all) {
		set_phase(box, PASS_ALL);
		read_all(w, box, NULL, &all->words, &all->order);
	}
	set_phase(box, PHASE_DONE);
}

static bool check_pass(const struct walk *w, int cpu, int pass, const uint8_t *contents, char *why,
		       size_t size)
{
	static const char *const name[] = { "first", "second", "last", "complete" };
	const struct walk_box *box = walk_box(w, cpu);
	const struct walk_pass *p = &box->pass[pass];
	uint32_t added = pass == PASS_LAST ? box->rounds * GUEST_ADDEND : 0;
	uint32_t words = 0, order = 0;
	size_t count, n, i;
	const struct walk_visit *v = walk_visits(w, cpu, pass, &count);

	if (pass == PASS_ALL) {
		read_all(w, box, contents, &words, &order);
	} else {
		for (n = 0; n < count; n++) {
			const uint8_t *page = contents + (v[n].page - GUEST_MEMORY);

			for (i = 0; i < GUEST_WORDS; i++)
				words += *(const uint32_t *)(page + i * GUEST_STRIDE);
			words += added;
			order += words;
		}
	}
	if (words == p->words && order == p->order)
		return true;
	snprintf(why, size,
		 "CPU %d read wrong bytes: checksum of its %s pass is %08x:%08x, not %08x:%08x",
		 cpu, name[pass], p->words, p->order, words, order);
	return false;
}

/* Check all memory, page by page. The visits of a CPU tell which pages it has written to. */
static bool check_memory(const struct walk *w, const uint8_t *contents, char *why, size_t size)
{
	uint8_t expected[GUEST_PAGE] __attribute__((aligned(8)));
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		uint32_t added = walk_box(w, cpu)->rounds * GUEST_ADDEND, word;
		size_t count, n, i;
		const struct walk_visit *v = walk_visits(w, cpu, PASS_LAST, &count);

		for (n = 0; n < count; n++) {
			unsigned long long offset = v[n].page - GUEST_MEMORY;

			memcpy(expected, contents + offset, GUEST_PAGE);
			memcpy(&word, expected + GUEST_WRITTEN, sizeof(word));
			word += added;
			memcpy(expected + GUEST_WRITTEN, &word, sizeof(word));
			if (!memcmp(expected, w->memory + offset, GUEST_PAGE))
				continue;
			for (i = 0; expected[i] == w->memory[offset + i]; i++)
				;
			snprintf(why, size, "memory is wrong at offset %#llx: %02x, not %02x",
				 offset + i, w->memory[offset + i], expected[i]);
			return false;
		}
	}
	return true;
}

bool walk_check(const struct walk *w, const void *contents, char *why, size_t size)
{
	int cpu, pass;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		for (pass = 0; pass < PASSES; pass++) {
			if (pass == PASS_ALL && !walk_box(w, cpu)->all)
				continue;
			if (!check_pass(w, cpu, pass, contents, why, size))
				return false;
		}
	}
	return check_memory(w, contents, why, size);
}
