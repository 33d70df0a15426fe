/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was done to each arena recently, and the report of an error, which ends the program.
 */
#include "chaos.h"

#include <fcntl.h>
#include <unistd.h>

#define SHOWN 60

void note(struct arena *a, unsigned int who, const char *what, uint64_t page, uint64_t pages,
	  uint64_t value)
{
	uint64_t at = atomic_fetch_add_explicit(&a->events, 1, memory_order_relaxed);
	struct event *e = &a->history[at % HISTORY];

	atomic_store_explicit(&e->what, what, memory_order_relaxed);
	atomic_store_explicit(&e->at_us, now_us(), memory_order_relaxed);
	atomic_store_explicit(&e->value, value, memory_order_relaxed);
	atomic_store_explicit(&e->page, (uint32_t)page, memory_order_relaxed);
	atomic_store_explicit(&e->pages, (uint32_t)pages, memory_order_relaxed);
	atomic_store_explicit(&e->who, who, memory_order_relaxed);
}

static double seconds_since_birth(uint64_t us)
{
	return (double)(int64_t)(us - life.begun_us) / 1e6;
}

static void print_history(struct arena *a, uint64_t page)
{
	uint64_t last = atomic_load(&a->events), at = last, found = 0;

	while (at && at + HISTORY > last && found < SHOWN) {
		const struct event *e = &a->history[--at % HISTORY];

		found += page - e->page < e->pages;
	}
	fprintf(stderr, "# history of the page (seconds, who: what, pages, value):\n");
	for (; at < last; at++) {
		const struct event *e = &a->history[at % HISTORY];

		if (page - e->page < e->pages)
			fprintf(stderr, "#  %.6f %3u: %s %u+%u %#llx\n",
				seconds_since_birth(e->at_us), e->who, e->what, e->page, e->pages,
				(unsigned long long)e->value);
	}
}

static void print_page(const struct arena *a, uint64_t page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0, arrived[PAGES_MAX / 64] = { 0 };
	uintptr_t at = (uintptr_t)a->ram.addr + page * PAGE;

	(void)!pread(fd, &entry, sizeof(entry), (off_t)(at / PAGE * sizeof(entry)));
	close(fd);
	hgm_region_export(a->ram.region, page / 64 * 64, 1 + page % 64, arrived);
	fprintf(stderr, "# page: %s, pagemap %#llx\n",
		arrived[0] >> page % 64 & 1 ? "has arrived" : "has not arrived",
		(unsigned long long)entry);
}

static void print_arena(const struct arena *a)
{
	struct hgm_region_info info = { .size = sizeof(info) };

	fprintf(stderr, "# arena %u: %s, flags %#x, %llu pages, runs of %llu, source: %s\n",
		a->index, backing_names[a->backing], a->flags, (unsigned long long)a->pages,
		(unsigned long long)a->run, supply_name(a->supply));
	if (atomic_load(&a->state) != ARENA_LIVE || hgm_region_get_info(a->ram.region, &info))
		return;
	fprintf(stderr, "# %s\n# present %llu, huge %llu, poisoned %llu\n", info.sentence,
		(unsigned long long)info.present_bytes, (unsigned long long)info.huge_bytes,
		(unsigned long long)info.poisoned_bytes);
}

static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;

static void begin_report(void)
{
	pthread_mutex_lock(&once);
	fflush(stdout);
	fprintf(stderr, "# CHAOS: --seed %llu, %.6f s into the life\n",
		(unsigned long long)life.seed, seconds_since_birth(now_us()));
}

static void end_report(struct arena *a, uint64_t page)
{
	if (a) {
		print_arena(a);
		if (atomic_load(&a->state) == ARENA_LIVE)
			print_page(a, page);
		print_history(a, page);
	}
	fflush(stderr);
	if (getenv("HGM_CHAOS_STOP"))
		pause();
	_exit(1);
}

void wrong_page(struct arena *a, uint64_t page, uint64_t truth, int word, const uint64_t *in,
		const char *when)
{
	uint64_t want[WORDS], bad = 0;

	begin_report();
	words_expected(a, page, truth, want);
	for (unsigned int w = 0; w < WORDS; w++)
		bad += in[w] != want[w];
	fprintf(stderr,
		"# %s: arena %u, page %llu, word %d: %016llx instead of %016llx; "
		"%llu words differ; truth %#llx (now %#llx)\n",
		when, a->index, (unsigned long long)page, word, (unsigned long long)in[word],
		(unsigned long long)want[word], (unsigned long long)bad, (unsigned long long)truth,
		(unsigned long long)truth_of(a, page));
	words_expected(a, page, SOURCE, want);
	if (in[word] == want[word])
		fprintf(stderr, "# it is the source's\n");
	end_report(a, page);
	_exit(1);
}

void wrong(struct arena *a, uint64_t page, const char *format, ...)
{
	va_list ap;

	begin_report();
	if (a)
		fprintf(stderr, "# arena %u, page %llu, truth %#llx: ", a->index,
			(unsigned long long)page, (unsigned long long)truth_of(a, page));
	else
		fprintf(stderr, "# ");
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	end_report(a, page);
	_exit(1);
}

void must(int rc, const char *call)
{
	if (rc)
		wrong(NULL, 0, "%s: %s: %s", call, strerrorname_np(-rc), hgm_errmsg());
}
