/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * chaos [SECONDS] [--seed N] [--only WORD,...]: random lives for this many seconds.
 */
#include "chaos.h"

#include <getopt.h>

#define LIFE_US SMALLER(1000000, 4000000)

struct tally tally;

static int usage(void)
{
	fprintf(stderr, "usage: chaos [SECONDS] [--seed N] [--only WORD,...]\n"
			"SECONDS: HGM_CHAOS_SECONDS, or 20\n"
			"words:");
	print_choices(stderr);
	fprintf(stderr, "\n");
	return 2;
}

static void print_tally(void)
{
	printf("%llu lives, %llu regions, %llu reads checked, %llu writes, %llu discards, %llu by "
	       "other means, %llu unmapped, %llu snapshots, %llu dirty collections, %llu watches, "
	       "%llu "
	       "engines destroyed in use, %llu touches of poison, %llu refused by the kernel\n",
	       (unsigned long long)tally.lives, (unsigned long long)tally.regions,
	       (unsigned long long)tally.reads, (unsigned long long)tally.writes,
	       (unsigned long long)tally.discards, (unsigned long long)tally.drops,
	       (unsigned long long)tally.remaps, (unsigned long long)tally.snapshots,
	       (unsigned long long)tally.collections, (unsigned long long)tally.watches,
	       (unsigned long long)tally.kills, (unsigned long long)tally.poisoned,
	       (unsigned long long)tally.refused);
}

/* The next life shows what a life leaves behind. The first one leaves what is created only once. */
static void check_leaks(struct holdings *first)
{
	struct holdings now = take_holdings();

	if (!first->threads)
		*first = now;
	if (now.descriptors > first->descriptors + 8 || now.threads != first->threads)
		wrong(NULL, 0,
		      "left behind: %u descriptors instead of %u, %u threads instead of %u",
		      now.descriptors, first->descriptors, now.threads, first->threads);
}

static void play(uint64_t seed, unsigned int seconds)
{
	uint64_t end = now_us() + seconds * UINT64_C(1000000);
	struct holdings first = { 0 };

	do {
		struct random r = { seed };

		live(seed++, LIFE_US / 4 + random_below(&r, LIFE_US));
		check_leaks(&first);
	} while (now_us() < end);
	hang_watch_end();
	print_tally();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "only", required_argument, NULL, 'o' },
		{ 0 },
	};
	const char *seconds = getenv("HGM_CHAOS_SECONDS");
	const char *lacking = lacking_userfaultfd();
	uint64_t seed = 0;

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c != 'o' || !choose(optarg))
			return usage();
	}
	if (optind < argc)
		seconds = argv[optind++];
	if (optind < argc)
		return usage();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (lacking) {
		printf("# skipped: %s\n", lacking);
		return TEST_EXIT_SKIPPED;
	}
	if (!seed)
		seed = random_seed();
	printf("# --seed %llu\n", (unsigned long long)seed);
	play(seed, seconds ? (unsigned int)strtoul(seconds, NULL, 10) : 20);
	return 0;
}
