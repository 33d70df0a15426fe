/* SPDX-License-Identifier: 0BSD */
/*
 * Pre-copy live migration of a guest's memory, by dirty tracking: all of it is sent while the guest
 * runs, then what was written to meanwhile, round by round, until so little is left that the guest
 * can be paused for it
 */
#ifndef PRECOPY_H
#define PRECOPY_H

#include <stdbool.h>

#include "machine.h"

#define PRECOPY_ROUNDS 30

/**
 * struct precopy_opts - how
 * @gbps:        bandwidth of the imitated link, in 10^9 bits a second
 * @downtime_us: the guest may be paused when what is left takes no longer to send
 * @flags:       HGM_DIRTY_*
 */
struct precopy_opts {
	double gbps;
	double downtime_us;
	uint32_t flags;
};

/**
 * struct precopy_round - one round
 * @pages:      that were sent
 * @collect_us: hgm_dirty_collect()
 * @send_us:    sending them
 */
struct precopy_round {
	uint64_t pages;
	double collect_us;
	double send_us;
};

/**
 * struct precopy - a migration
 * @there:    the memory at the destination; to be freed by precopy_free()
 * @round:    the rounds; the last one with the guest paused
 * @rounds:   how many
 * @little:   little enough was left; if not, more rounds would not have helped
 * @start_us: hgm_dirty_start()
 * @pause_us: the guest stood still, but for @stale being found
 * @from:     when tracking began
 * @to:       when the guest was paused
 * @stalls:   of the writes between them
 * @stale:    pages that differed when the guest was paused
 * @missed:   of these, not reported as dirty
 * @at:       where the guest was when it was paused
 * @unit:     bytes that one write makes dirty at most
 * @flags:    HGM_DIRTY_* in force
 * @sentence: how it was tracked
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
 * Do it. The guest is left paused, and its memory at the destination is complete. Return: 0 or a
 * negative errno, with the reason in @m->why.
 */
int precopy_run(struct precopy *p, struct machine *m, const struct precopy_opts *opts);
void precopy_free(struct precopy *p, uint64_t length);

#endif /* PRECOPY_H */
