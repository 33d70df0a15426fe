/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Small stacks and one heap, so that the memory that the C library keeps for them is constant. */
__attribute__((constructor)) static void frugal(void)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, (SANITIZED ? 1024 : 256) * 1024);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
	if (!SANITIZED)
		mallopt(M_ARENA_MAX, 1);
}

unsigned int slowness(void)
{
	const char *said = getenv("HGM_TEST_SLOW");
	unsigned long factor = said ? strtoul(said, NULL, 10) : 1;

	if (SANITIZED)
		return 8;
	return factor > 1 ? (unsigned int)factor : 1;
}

bool turn_of(unsigned int *turn, unsigned int n)
{
	return !getenv("HGM_TEST_SLOW") || (*turn)++ % n == 0;
}

const char *const kernel_feature_names[] = {
	[KERNEL_POISON] = "UFFDIO_POISON (6.6 or later has)",
	[KERNEL_PAGEMAP_SCAN] = "PAGEMAP_SCAN (6.7 or later has)",
};

static bool has_uffd_feature(uint64_t bit)
{
	struct hgm_uffd *u;
	uint64_t have;

	assert_ok(hgm_uffd_open(&u, NULL));
	have = hgm_uffd_supported(u);
	hgm_uffd_close(u);
	return have & bit;
}

static bool has_pagemap_scan(void)
{
	static char page[4096] __attribute__((aligned(4096)));
	uint64_t huge;

	return hgm_mapped_huge(page, sizeof(page), &huge) != -EOPNOTSUPP;
}

bool kernel_has(enum kernel_feature feature)
{
	return feature == KERNEL_POISON ? has_uffd_feature(HGM_UFFD_FEATURE_POISON)
					: has_pagemap_scan();
}

static const char *watched = "";

static void too_late(int sig)
{
	static const char head[] = "# HANGS: ";

	(void)sig;
	(void)!write(2, head, sizeof(head) - 1);
	(void)!write(2, watched, strlen(watched));
	(void)!write(2, "\n", 1);
	_exit(1);
}

void watch(const char *what, unsigned int seconds)
{
	watched = what;
	signal(SIGALRM, too_late);
	alarm(seconds * slowness());
}

void calm(void)
{
	alarm(0);
}

void nap_us(unsigned int us)
{
	usleep(us);
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t random_of(_Atomic uint64_t *state)
{
	return mix(atomic_fetch_add_explicit(state, UINT64_C(0x9e3779b97f4a7c15),
					     memory_order_relaxed));
}

bool contents_hole(const struct contents *c, uint64_t page)
{
	return c->holes && page / 24 % 3 == 1;
}

static uint64_t page_key(const struct contents *c, uint64_t page)
{
	return mix(c->seed + page) | 1;
}

/* The product of two odd numbers: no word is zero by chance, and no two words of a page match. */
static uint64_t word_of(uint64_t key, unsigned int w)
{
	return key * (2 * w + 1);
}

static uint64_t mark_of(uint64_t page, unsigned int slot)
{
	return mix(~page) << 8 | 0x80 | slot;
}

void contents_write(const struct contents *c, uint64_t page, uint64_t pages, void *to)
{
	uint64_t *out = to;

	for (uint64_t p = page; p < page + pages; p++, out += 512) {
		uint64_t key = contents_hole(c, p) ? 0 : page_key(c, p);

		for (unsigned int w = 0; w < 512; w++)
			out[w] = word_of(key, w);
	}
}

bool words_right(const struct contents *c, uint64_t page, const uint64_t *in, int mine,
		 char why[160])
{
	uint64_t key = contents_hole(c, page) ? 0 : page_key(c, page);

	for (unsigned int w = 0; w < 512; w++) {
		uint64_t want = word_of(key, w);
		uint64_t got = w < SLOTS ? __atomic_load_n(&in[w], __ATOMIC_RELAXED) : in[w];

		if ((int)w == mine)
			want = mark_of(page, w);
		if (got == want || (w < SLOTS && (int)w != mine && got == mark_of(page, w)))
			continue;
		snprintf(why, 160, "page %llu, word %u: %016llx instead of %016llx%s",
			 (unsigned long long)page, w, (unsigned long long)got,
			 (unsigned long long)want, (int)w == mine ? " (a write was lost)" : "");
		return false;
	}
	return true;
}

void page_mark(uint64_t page, void *at, unsigned int slot)
{
	__atomic_store_n((uint64_t *)at + slot, mark_of(page, slot), __ATOMIC_RELAXED);
}

void assert_pages(const struct contents *c, uint64_t first_page, uint64_t pages, const void *at)
{
	char why[160];

	for (uint64_t p = 0; p < pages; p++)
		if (!page_right(c, first_page + p, (const char *)at + p * PAGE, -1, why))
			fail_msg("at the end: %s", why);
}

struct hgm *engine_with(struct hgm_opts opts)
{
	struct hgm *h = NULL;

	catch_faults();
	opts.size = sizeof(opts);
	assert_ok(hgm_create(&h, &opts));
	return h;
}

struct hgm *engine(uint32_t fault_threads)
{
	return engine_with((struct hgm_opts){ .fault_threads = fault_threads });
}

struct hgm_region_info info_of(const struct hgm_region *r)
{
	struct hgm_region_info info = { .size = sizeof(info) };

	assert_ok(hgm_region_get_info(r, &info));
	return info;
}

struct hgm_stats stats_of(const struct hgm *h)
{
	struct hgm_stats stats = { .size = sizeof(stats) };

	assert_ok(hgm_get_stats(h, &stats));
	return stats;
}

struct hgm_progress progress_of(struct hgm *h)
{
	struct hgm_progress progress = { .size = sizeof(progress) };

	assert_ok(hgm_get_progress(h, &progress));
	return progress;
}

#define LOOKS_MIN 100 /* if the machine was suspended, time has passed without any progress */

bool eventually(bool (*done)(void *), void *arg, unsigned int ms)
{
	uint64_t end = now_us() + UINT64_C(1000) * ms * slowness();
	unsigned int late = 0;

	while (!done(arg)) {
		if (now_us() > end && ++late > LOOKS_MIN)
			return false;
		nap_us(500);
	}
	return true;
}
