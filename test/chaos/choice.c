/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a life does: everything, or what --only names. Without a backing in the list, all are
 * used. Without an act, all acts are.
 */
#include "chaos.h"

static const char *const words[ACTS] = {
	[BACKING_SHMEM] = "shmem",
	[BACKING_SHMEM_LAZY] = "lazy",
	[BACKING_ANON] = "anon",
	[BACKING_FD] = "fd",
	[BACKING_FD_LAZY] = "fd-lazy",
	[BACKING_MAPPING] = "mapping",
	[BACKING_MAPPING_LAZY] = "mapping-lazy",
	[BACKING_MAPPING_ANON] = "mapping-anon",
	[BACKING_HUGETLB_2M] = "hugetlb",
	[BACKING_FD_HUGETLB_2M] = "fd-hugetlb",
	/* Not BACKING_HUGETLB_1G: there is one such page at best, which other tests need. */
	[ACT_DISCARD] = "discard",
	[ACT_RAW] = "raw",
	[ACT_SNAPSHOT] = "snapshot",
	[ACT_DIRTY] = "dirty",
	[ACT_WATCH] = "watch",
	[ACT_CALLS] = "calls",
	[ACT_ENDS] = "ends",
	[ACT_ERRORS] = "errors",
	[ACT_EAGAIN] = "eagain",
	[ACT_UNALIGNED] = "unaligned",
};

static bool chosen[ACTS], some_backings, some_acts;

bool may(unsigned int act)
{
	if (!words[act])
		return false;
	return chosen[act] || (act < BACKINGS ? !some_backings : !some_acts);
}

static bool choose_word(const char *word, size_t length)
{
	for (unsigned int i = 0; i < ACTS; i++) {
		if (!words[i] || strlen(words[i]) != length || strncmp(words[i], word, length) != 0)
			continue;
		chosen[i] = true;
		some_backings |= i < BACKINGS;
		some_acts |= i >= BACKINGS;
		return true;
	}
	return false;
}

bool choose(const char *list)
{
	for (size_t length; *list; list += length + (list[length] == ',')) {
		length = strcspn(list, ",");
		if (!choose_word(list, length))
			return false;
	}
	return true;
}

void print_choices(FILE *to)
{
	for (unsigned int i = 0; i < ACTS; i++)
		if (words[i])
			fprintf(to, " %s", words[i]);
}
