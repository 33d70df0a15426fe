/* SPDX-License-Identifier: 0BSD */
/*
 * Page lists, CPUs, and the work of the guest with a balloon: see balloon.h
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../random.h"
#include "balloon.h"
#include "kvm.h"
#include "writer.h"

#define PATIENCE_S 60

_Static_assert(offsetof(struct balloon_box, unit) == BOX_UNIT, "balloon_guest.S");
_Static_assert(offsetof(struct balloon_box, given) == BOX_GIVEN, "balloon_guest.S");
_Static_assert(offsetof(struct balloon_box, halt) == BOX_HALT, "balloon_guest.S");
_Static_assert(offsetof(struct balloon_box, laps) == BOX_LAPS, "balloon_guest.S");
_Static_assert(offsetof(struct balloon_box, wrong_sum) == BOX_WRONG_SUM, "balloon_guest.S");
_Static_assert(sizeof(struct balloon_box) <= BOX_SIZE, "balloon_guest.S");
_Static_assert(sizeof(struct balloon_page) == PAGE_ENTRY, "balloon_guest.S");

struct vcpu {
	struct balloon *b;
	pthread_t thread;
	int index;
	uint32_t taken; /* the entries before this in its list were taken */
	int result;
	char why[200];
};

struct balloon {
	uint8_t *low; /* guest physical address 0 */
	size_t low_size;
	struct balloon_opts o;
	struct kvm *kvm; /* NULL if threads do the work */
	bool started;
	struct vcpu cpu[GUEST_CPUS];
};

static struct balloon_box *box_of(const struct balloon *b, int cpu)
{
	return (struct balloon_box *)(b->low + GUEST_BOXES + (size_t)cpu * BOX_SIZE);
}

static struct balloon_page *page_at(const struct balloon *b, uint32_t address)
{
	return (struct balloon_page *)(b->low + address);
}

static uint8_t *memory_of(const struct balloon *b, const struct balloon_page *page)
{
	return (uint8_t *)b->o.memory + (page->address - GUEST_MEMORY);
}

/* Return the page number, counted from the start of the memory. */
static uint32_t number_of(const struct balloon_page *page)
{
	return (page->address - GUEST_MEMORY) / GUEST_PAGE;
}

static uint32_t sum_of(const void *page)
{
	const uint32_t *word = page;
	uint32_t sum = 0;
	int i;

	for (i = 0; i < RECORD_WORDS; i++)
		sum += word[i * RECORD_STRIDE / 4];
	return sum;
}

/* List the units of the CPU, shuffled, and the pages of each unit in order. */
static int make_list(struct balloon *b, int cpu, uint64_t *seed)
{
	uint32_t units = b->o.length / b->o.unit / GUEST_CPUS, pages = b->o.unit / GUEST_PAGE;
	struct balloon_page *page = page_at(b, box_of(b, cpu)->pages);
	uint32_t *unit = calloc(units, sizeof(*unit)), i, n, other, was;
	uint64_t offset;

	if (!unit)
		return -ENOMEM;
	for (i = 0; i < units; i++)
		unit[i] = i * GUEST_CPUS + cpu;
	for (i = units - 1; i > 0; i--) {
		other = random_below(seed, i + 1);
		was = unit[i];
		unit[i] = unit[other];
		unit[other] = was;
	}
	for (i = 0; i < units; i++) {
		for (n = 0; n < pages; n++, page++) {
			offset = unit[i] * b->o.unit + (uint64_t)n * GUEST_PAGE;
			page->address = GUEST_MEMORY + offset;
			page->sum = sum_of(b->o.base + offset);
		}
	}
	free(unit);
	return 0;
}

static int make_lists(struct balloon *b)
{
	uint64_t units = b->o.length / b->o.unit / GUEST_CPUS, seed = b->o.seed;
	size_t list = units * (b->o.unit / GUEST_PAGE) * PAGE_ENTRY;
	int cpu, rc = 0;

	b->low_size = GUEST_TABLES + GUEST_CPUS * list;
	b->low_size = (b->low_size + GUEST_PAGE - 1) / GUEST_PAGE * GUEST_PAGE;
	b->low =
		mmap(NULL, b->low_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->low == MAP_FAILED) {
		b->low = NULL;
		return -errno;
	}
	for (cpu = 0; !rc && cpu < GUEST_CPUS; cpu++) {
		struct balloon_box *box = box_of(b, cpu);

		box->pages = GUEST_TABLES + cpu * list;
		box->pages_end = box->pages + list;
		box->unit = b->o.unit / GUEST_PAGE * PAGE_ENTRY;
		box->target = box->given = b->cpu[cpu].taken = box->pages;
		rc = make_list(b, cpu, &seed);
	}
	return rc;
}

static int make_kvm(struct balloon *b, char *why, size_t size)
{
	const struct kvm_opts opts = {
		.program = KVM_BALLOON,
		.low = b->low,
		.low_size = b->low_size,
		.memory = b->o.memory,
		.length = b->o.length,
	};

	return kvm_create(&b->kvm, &opts, why, size);
}

int balloon_create(struct balloon **out, const struct balloon_opts *opts, char *why, size_t size)
{
	struct balloon *b = calloc(1, sizeof(*b));
	int rc = b ? 0 : -ENOMEM, i;

	if (!rc) {
		b->o = *opts;
		for (i = 0; i < GUEST_CPUS; i++) {
			b->cpu[i].b = b;
			b->cpu[i].index = i;
		}
		rc = make_lists(b);
	}
	if (rc)
		snprintf(why, size, "the guest's lists of pages: %s", strerror(-rc));
	else if (opts->kvm)
		rc = make_kvm(b, why, size);
	if (rc)
		balloon_destroy(b);
	else
		*out = b;
	return rc;
}

/* Give up a unit. Return: the first page in use. */
static uint32_t give(struct balloon *b, struct balloon_box *box)
{
	uint32_t at = box->given, end = at + box->unit;

	for (; at < end; at += PAGE_ENTRY) {
		page_at(b, at)->sum = page_at(b, at)->write = 0;
		page_at(b, at)->back = 1;
	}
	__atomic_store_n(&box->given, end, __ATOMIC_RELEASE);
	return end;
}

/* Do what balloon_guest.S does between two pages. Return: the next page to use. */
static uint32_t move(struct balloon *b, struct balloon_box *box, uint32_t at)
{
	uint32_t given = box->given, target = __atomic_load_n(&box->target, __ATOMIC_ACQUIRE);

	if (given > target) {
		given -= box->unit;
		__atomic_store_n(&box->given, given, __ATOMIC_RELEASE);
		return given;
	}
	while (given < target) {
		given = give(b, box);
		if (!(given & BALLOON_BURST))
			break;
	}
	return at < given ? given : at;
}

static void use(struct balloon *b, struct balloon_box *box, struct balloon_page *page)
{
	uint32_t sum = sum_of(memory_of(b, page));

	if (sum != page->sum) {
		box->wrong_sum = sum;
		box->wrong_page = page->address;
		__atomic_store_n(&box->wrong, box->wrong + 1, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&box->writes, box->writes + 1, __ATOMIC_RELAXED);
	page->write = box->writes;
	writer_record(memory_of(b, page), number_of(page), page->write);
	page->sum = sum_of(memory_of(b, page));
}

static void by_thread(struct balloon *b, int cpu)
{
	struct balloon_box *box = box_of(b, cpu);
	uint32_t at = box->given;

	do {
		at = move(b, box, at);
		use(b, box, page_at(b, at));
		at += PAGE_ENTRY;
		if (at == box->pages_end) {
			at = box->given;
			__atomic_store_n(&box->laps, box->laps + 1, __ATOMIC_RELEASE);
		}
	} while (!__atomic_load_n(&box->halt, __ATOMIC_ACQUIRE));
}

static void *cpu_main(void *arg)
{
	struct vcpu *cpu = arg;

	if (cpu->b->kvm)
		cpu->result = kvm_run(cpu->b->kvm, cpu->index, cpu->why, sizeof(cpu->why));
	else
		by_thread(cpu->b, cpu->index);
	return NULL;
}

static void halt(struct balloon *b)
{
	int i;

	for (i = 0; i < GUEST_CPUS; i++)
		__atomic_store_n(&box_of(b, i)->halt, 1, __ATOMIC_RELEASE);
}

int balloon_start(struct balloon *b, char *why, size_t size)
{
	char name[16];
	int rc, i;

	for (i = 0; i < GUEST_CPUS; i++) {
		rc = pthread_create(&b->cpu[i].thread, NULL, cpu_main, &b->cpu[i]);
		if (rc) {
			snprintf(why, size, "a thread for CPU %d: %s", i, strerror(rc));
			halt(b);
			while (i-- > 0)
				pthread_join(b->cpu[i].thread, NULL);
			return -rc;
		}
		snprintf(name, sizeof(name), "vcpu-%d", i);
		pthread_setname_np(b->cpu[i].thread, name);
	}
	b->started = true;
	return 0;
}

void balloon_set_target(struct balloon *b, uint64_t bytes)
{
	uint32_t entries = bytes / GUEST_CPUS / GUEST_PAGE * PAGE_ENTRY;
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		struct balloon_box *box = box_of(b, i);

		if (b->cpu[i].taken > box->pages + entries)
			b->cpu[i].taken = box->pages + entries;
		__atomic_store_n(&box->target, box->pages + entries, __ATOMIC_RELEASE);
	}
}

bool balloon_take(struct balloon *b, uint64_t *offset)
{
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		struct balloon_box *box = box_of(b, i);
		uint32_t at = b->cpu[i].taken;

		/* While the balloon shrinks, there is nothing to take. */
		if (at >= __atomic_load_n(&box->given, __ATOMIC_ACQUIRE) || at >= box->target)
			continue;
		*offset = page_at(b, at)->address - GUEST_MEMORY;
		b->cpu[i].taken += box->unit;
		return true;
	}
	return false;
}

uint64_t balloon_bytes(const struct balloon *b)
{
	uint64_t bytes = 0;
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		const struct balloon_box *box = box_of(b, i);
		uint32_t given = __atomic_load_n(&box->given, __ATOMIC_ACQUIRE);

		bytes += (uint64_t)(given - box->pages) / PAGE_ENTRY * GUEST_PAGE;
	}
	return bytes;
}

uint32_t balloon_laps(const struct balloon *b)
{
	uint32_t laps = UINT32_MAX, n;
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		n = __atomic_load_n(&box_of(b, i)->laps, __ATOMIC_ACQUIRE);
		laps = n < laps ? n : laps;
	}
	return laps;
}

uint64_t balloon_writes(const struct balloon *b)
{
	uint64_t writes = 0;
	int i;

	for (i = 0; i < GUEST_CPUS; i++)
		writes += __atomic_load_n(&box_of(b, i)->writes, __ATOMIC_RELAXED);
	return writes;
}

int balloon_verdict(const struct balloon *b, char *why, size_t size)
{
	int i;

	for (i = 0; i < GUEST_CPUS; i++) {
		const struct balloon_box *box = box_of(b, i);
		uint32_t wrong = __atomic_load_n(&box->wrong, __ATOMIC_ACQUIRE);

		if (!wrong)
			continue;
		snprintf(
			why, size,
			"CPU %d found %u wrong pages, the last at offset %#x: the sum of its words "
			"is %#x",
			i, wrong, box->wrong_page - GUEST_MEMORY, box->wrong_sum);
		return -EILSEQ;
	}
	return 0;
}

int balloon_finish(struct balloon *b, char *why, size_t size)
{
	struct timespec until;
	int rc, i;

	if (!b->started)
		return 0;
	halt(b);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	for (i = 0; i < GUEST_CPUS; i++) {
		rc = pthread_timedjoin_np(b->cpu[i].thread, NULL, &until);
		if (rc) {
			snprintf(why, size, "CPU %d hangs: %s", i, strerror(rc));
			return -rc;
		}
	}
	b->started = false;
	for (i = 0; i < GUEST_CPUS; i++) {
		if (b->cpu[i].result) {
			snprintf(why, size, "%s", b->cpu[i].why);
			return b->cpu[i].result;
		}
	}
	return 0;
}

static void expect(const struct balloon *b, const struct balloon_page *page, uint8_t *expected)
{
	if (page->back)
		memset(expected, 0, GUEST_PAGE);
	else
		memcpy(expected, b->o.base + (page->address - GUEST_MEMORY), GUEST_PAGE);
	if (page->write)
		writer_record(expected, number_of(page), page->write);
}

static int check_list(const struct balloon *b, const struct balloon_box *box, char *why,
		      size_t size)
{
	uint8_t expected[GUEST_PAGE] __attribute__((aligned(4)));
	const uint8_t *memory;
	uint32_t at;
	int i;

	for (at = box->pages; at < box->pages_end; at += PAGE_ENTRY) {
		memory = memory_of(b, page_at(b, at));
		expect(b, page_at(b, at), expected);
		if (!memcmp(memory, expected, GUEST_PAGE))
			continue;
		for (i = 0; memory[i] == expected[i]; i++)
			;
		snprintf(why, size, "at offset %#llx there is %02x, not %02x",
			 (unsigned long long)(page_at(b, at)->address - GUEST_MEMORY) + i,
			 memory[i], expected[i]);
		return -EILSEQ;
	}
	return 0;
}

int balloon_check(const struct balloon *b, char *why, size_t size)
{
	int rc = 0, i;

	for (i = 0; !rc && i < GUEST_CPUS; i++)
		rc = check_list(b, box_of(b, i), why, size);
	return rc;
}

void balloon_destroy(struct balloon *b)
{
	if (!b)
		return;
	kvm_destroy(b->kvm);
	if (b->low)
		munmap(b->low, b->low_size);
	free(b);
}
