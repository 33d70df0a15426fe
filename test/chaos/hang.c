/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that does one thing for too long hangs. Then the program prints what all threads do, and
 * where each one is in the kernel.
 */
#include "chaos.h"

#include <dirent.h>
#include <unistd.h>

#define LIMIT_US (UINT64_C(60000000) * SMALLER(1, 3))
#define TEXT	 2048

static struct actor *const *watched_actors;
static unsigned int watched_count;
static pthread_t thread;
static _Atomic bool stop;

void does(struct actor *a, const char *what, unsigned int arena, uint64_t page, uint64_t pages)
{
	atomic_store_explicit(&a->arena, arena, memory_order_relaxed);
	atomic_store_explicit(&a->page, page, memory_order_relaxed);
	atomic_store_explicit(&a->pages, pages, memory_order_relaxed);
	atomic_store_explicit(&a->since_us, now_us(), memory_order_relaxed);
	atomic_store_explicit(&a->doing, what, memory_order_release);
}

void did(struct actor *a)
{
	atomic_store_explicit(&a->doing, NULL, memory_order_release);
}

static size_t read_file(const char *tid, const char *name, char text[TEXT])
{
	char path[300];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", tid, name);
	file = fopen(path, "r");
	n = file ? fread(text, 1, TEXT - 1, file) : 0;
	if (file)
		fclose(file);
	text[n] = 0;
	return n;
}

static void print_file(const char *tid, const char *name)
{
	char text[TEXT];
	size_t n = read_file(tid, name, text);

	fprintf(stderr, "%s%s", text, n && text[n - 1] == '\n' ? "" : "\n");
}

/*
 * MADV_COLLAPSE waits for a kernel worker on each CPU. Tasks of higher priority may delay that
 * worker for minutes. All threads that need the address space wait with it.
 */
static bool kernel_drains(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	char text[TEXT];
	bool drains = false;

	while (dir && (entry = readdir(dir))) {
		read_file(entry->d_name, "stack", text);
		drains |= strstr(text, "lru_add_drain_all") != NULL;
	}
	if (dir)
		closedir(dir);
	return drains;
}

static void print_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		fprintf(stderr, "# thread %s: ", entry->d_name);
		print_file(entry->d_name, "comm");
		print_file(entry->d_name, "syscall");
		print_file(entry->d_name, "stack");
	}
	if (dir)
		closedir(dir);
}

static void print_arenas(void)
{
	for (unsigned int i = 0; i < ARENAS; i++) {
		const struct arena *a = &life.arena[i];

		fprintf(stderr, "# arena %u: state %d, %s, flags %#x, %llu pages at %p, pins %u\n",
			i, (int)atomic_load(&a->state), backing_names[a->backing], a->flags,
			(unsigned long long)a->pages, (void *)atomic_load(&a->addr),
			atomic_load(&a->pins));
	}
}

static void print_actors(uint64_t now)
{
	for (unsigned int i = 0; i < watched_count; i++) {
		const struct actor *a = watched_actors[i];
		const char *doing = atomic_load(&a->doing);

		fprintf(stderr, "# %s %u: %s, arena %u, page %llu+%llu, for %.3f s\n", a->name,
			a->number, doing ? doing : "-", atomic_load(&a->arena),
			(unsigned long long)a->page, (unsigned long long)a->pages,
			doing ? (double)(now - a->since_us) / 1e6 : 0);
	}
}

static void look(void)
{
	static uint64_t excused_us;

	for (unsigned int i = 0; i < watched_count; i++) {
		struct actor *a = watched_actors[i];
		uint64_t now = now_us(), since = atomic_load(&a->since_us);
		const char *doing = atomic_load_explicit(&a->doing, memory_order_acquire);

		if (!doing || since != atomic_load(&a->since_us) || now < since + LIMIT_US)
			continue;
		if (kernel_drains())
			excused_us = now + LIMIT_US;
		if (now < excused_us && now < since + 10 * LIMIT_US)
			continue;
		fprintf(stderr, "# CHAOS: --seed %llu: HANGS\n", (unsigned long long)life.seed);
		print_actors(now);
		print_arenas();
		print_threads();
		wrong(&life.arena[a->arena], a->page, "%s %u hangs in %s", a->name, a->number,
		      doing);
	}
}

static void *watcher(void *arg)
{
	while (!atomic_load(&stop)) {
		look();
		nap_us(20000);
	}
	return arg;
}

void hang_watch(struct actor *const *actors, unsigned int count)
{
	watched_actors = actors;
	watched_count = count;
	atomic_store(&stop, false);
	pthread_create(&thread, NULL, watcher, NULL);
}

void hang_watch_end(void)
{
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
}
