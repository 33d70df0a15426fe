/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Access to memory after its collapse, compared with memory that was huge from the start, and with
 * memory of 4 KiB pages. Each read depends on the one before, and reads at a random place.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "memory.h"
#include "server.h"

static size_t access_bytes(void)
{
	return setting.quick ? 64 * MIB : 512 * MIB;
}

static double walk(const char *memory, size_t bytes, uint64_t reads)
{
	uint64_t mask = bytes / sizeof(uint64_t) - 1, at = 0, start = now_ns();
	const uint64_t *words = (const uint64_t *)memory;

	for (uint64_t i = 0; i < reads; i++)
		at = (words[at & mask] ^ i * UINT64_C(0x9e3779b97f4a7c15)) >> 20;
	/* The result must be used. */
	return (double)(now_ns() - start + (at == 1)) / (double)reads;
}

static void measure(const char *who, const char *memory, bool huge)
{
	size_t bytes = access_bytes();
	uint64_t is;

	if (hgm_mapped_huge(memory, bytes, &is) || is != (huge ? bytes : 0))
		die(who, "is not mapped as it should be");
	contents_check(who, memory, bytes); /* also warms up the memory */
	note(who, "read", walk(memory, bytes, setting.quick ? 1000000 : 10000000));
}

static void run_engine(void)
{
	char *memory;
	void *state = engine_filled(access_bytes(), 0, &memory);

	measure("libhgm", memory, true);
	engine_end(state);
}

static void run_native(const char *who, bool huge)
{
	size_t bytes = access_bytes();
	char *memory = memory_map(bytes, -1);

	madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memcpy(memory, contents(bytes), bytes);
	measure(who, memory, huge);
	munmap(memory, bytes);
}

static void round_access(const struct bench *b)
{
	(void)b;
	memory_warm(access_bytes());
	run_engine();
	memory_warm(access_bytes());
	run_native("native-huge", true);
	memory_warm(access_bytes());
	run_native("native-4K", false);
}

static void rows_access(const struct bench *b)
{
	(void)b;
	compare("access.read", LESS, "ns", "libhgm", "read", "native-huge");
	compare("access.read-4K", LESS, "ns", "libhgm", "read", "native-4K");
}

const struct bench access_benches[] = {
	{ "access", "random reads after the collapse", true, round_access, rows_access, NULL },
	{ NULL },
};
