/* SPDX-License-Identifier: 0BSD */
/*
 * Pre-copy live migration of a guest's memory, by dirty tracking. The first round sends all memory
 * while the guest runs. Each further round sends the pages that were written to in the meantime,
 * until so little is left that the guest can be paused for it.
 */
#ifndef PRECOPY_H
#define PRECOPY_H

#include <stdbool.h>

#include "machine.h"

#define PRECOPY_ROUNDS 30

/**
 * struct precopy_opts - options of a migration
 * @gbps:        bandwidth of the imitated link, in 10^9 bits a second
 * @downtime_us: pause the guest when sending the rest takes no longer than this
 * @flags:       HGM_DIRTY_*
 */
struct precopy_opts {
	double gbps;
	double downtime_us;
	uint32_t flags;
};

/**
 * struct precopy_round - one round
 * @pages:      number of pages sent
 * @collect_us: time of hgm_dirty_collect()
 * @send_us:    time to send the pages
 */
struct precopy_round {
	uint64_t pages;
	double collect_us;
	double send_us;
};

/**
 * struct precopy - a migration and its measurements
 * @there:    the memory at the destination; precopy_free() frees it
 * @round:    the rounds; the guest is paused in the last one
 * @rounds:   number of rounds
 * @little:   little enough was left; if not, more rounds would not have helped
 * @start_us: time of hgm_dirty_start()
 * @pause_us: how long the guest was paused, without the time to find @stale
 * @from:     when tracking began
 * @to:       when the guest was paused
 * @stalls:   stalls of the writes between @from and @to
 * @stale:    number of pages that differed when the guest was paused
 * @missed:   how many of these were not reported as dirty
 * @at:       state of the guest when it was paused
 * @unit:     bytes that one write makes dirty at most
 * @flags:    HGM_DIRTY_* in force
 * @sentence: a text that says how the memory was tracked
 */
struct precopy {
	uint8_t *there;
	struct precopy_round round[PRECOPY_ROUNDS + 1];
	unsigned int rounds;
	bool little;
	double start_us;
	double pause_us;
	struct moment from;
	struct moment to;
	struct stalls stalls;
	uint64_t stale;
	uint64_t missed;
	struct instant at;
	uint64_t unit;
	uint32_t flags;
	char sentence[300];
};

/*
 * Migrate the guest. On return it is paused, and its memory at the destination is complete. Return:
 * 0 or a negative errno, with the reason in @m->why.
 */
int precopy_run(struct precopy *p, struct machine *m, const struct precopy_opts *opts);
void precopy_free(struct precopy *p, uint64_t length);

#endif /* PRECOPY_H */
