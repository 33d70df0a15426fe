/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a life does: everything, or what --only names. Without a place in the list, all places are
 * used. Without an act, all acts are.
 */
#include "chaos.h"

static const char *const words[ACTS] = {
	[PLACE_SHMEM] = "shmem",
	[PLACE_SHMEM_LAZY] = "lazy",
	[PLACE_ANON] = "anon",
	[PLACE_FD] = "fd",
	[PLACE_FD_LAZY] = "fd-lazy",
	[PLACE_MAPPING] = "mapping",
	[PLACE_MAPPING_LAZY] = "mapping-lazy",
	[PLACE_MAPPING_ANON] = "mapping-anon",
	[PLACE_HUGETLB_2M] = "hugetlb",
	[PLACE_FD_HUGETLB_2M] = "fd-hugetlb",
	/* PLACE_HUGETLB_1G is not here: there is one such page at best, which other tests need. */
	[ACT_DISCARD] = "discard",
	[ACT_RAW] = "raw",
	[ACT_SNAPSHOT] = "snapshot",
	[ACT_DIRTY] = "dirty",
	[ACT_WATCH] = "watch",
	[ACT_CALLS] = "calls",
	[ACT_ENDS] = "ends",
	[ACT_ERRORS] = "errors",
	[ACT_EAGAIN] = "eagain",
};

static bool chosen[ACTS], some_places, some_acts;

bool may(unsigned int act)
{
	if (!words[act])
		return false;
	return chosen[act] || (act < PLACES ? !some_places : !some_acts);
}

static bool choose_word(const char *word, size_t length)
{
	for (unsigned int i = 0; i < ACTS; i++) {
		if (!words[i] || strlen(words[i]) != length || strncmp(words[i], word, length) != 0)
			continue;
		chosen[i] = true;
		some_places |= i < PLACES;
		some_acts |= i >= PLACES;
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
