/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Map all reported pages without a wake, then those that were reported meanwhile, until there are
 * no more. Then one UFFDIO_WAKE covers the lowest to the highest of these pages.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bench.h"
#include "contents.h"
#include "raw.h"
#include "server.h"

#define BATCH 32

static size_t next_pages(const struct raw *raw, uint64_t *addr, size_t most)
{
	struct uffd_msg msg[BATCH];
	ssize_t n = read(raw->memory.uffd, msg, most * sizeof(msg[0]));
	size_t count = n < 0 ? 0 : (size_t)n / sizeof(msg[0]);

	for (size_t i = 0; i < count; i++)
		addr[i] = msg[i].arg.pagefault.address & ~(uint64_t)(PAGE - 1);
	return count;
}

static void map_page(const struct memory *m, uint64_t addr)
{
	struct uffdio_continue c = { .range = { addr, PAGE },
				     .mode = UFFDIO_CONTINUE_MODE_DONTWAKE };
	size_t offset = (size_t)(addr - (uintptr_t)m->primary);

	memcpy(m->alias + offset, contents(m->bytes) + offset, PAGE);
	if (ioctl(m->uffd, UFFDIO_CONTINUE, &c) && errno != EEXIST)
		die("UFFDIO_CONTINUE", strerror(errno));
}

static void wake_span(const struct memory *m, uint64_t low, uint64_t high)
{
	struct uffdio_range range = { low, high + PAGE - low };

	if (ioctl(m->uffd, UFFDIO_WAKE, &range))
		die("UFFDIO_WAKE", strerror(errno));
}

static void *serve(void *arg)
{
	struct raw *raw = arg;
	unsigned int reads = 0;

	while (!raw_stopped(raw)) {
		uint64_t addr[BATCH], low = UINT64_MAX, high = 0;
		size_t served = 0, count;

		while (served < BATCH && (count = next_pages(raw, addr, BATCH - served))) {
			for (size_t i = 0; i < count; i++) {
				map_page(&raw->memory, addr[i]);
				low = addr[i] < low ? addr[i] : low;
				high = addr[i] > high ? addr[i] : high;
			}
			served += count;
		}
		if (served)
			wake_span(&raw->memory, low, high);
		else if (++reads % RAW_READS_PER_YIELD == 0)
			sched_yield();
	}
	return NULL;
}

static void *begin(size_t bytes, bool fresh, char **memory)
{
	(void)fresh; /* only for present pages */
	return raw_begin(bytes, MEMORY_PREPARED, serve, NULL, memory);
}

const struct server raw_wake = { "raw-wake", begin, raw_end };
