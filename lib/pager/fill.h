/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the pager keeps of a region: its fill, and the pages that threads wait for. Only the pager
 * uses it.
 */
#ifndef HGM_LIB_FILL_H
#define HGM_LIB_FILL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fill_control.h"
#include "readahead.h"

struct hgm_fill_source;
struct hgm_region;

struct hgm_prefetch {
	uint64_t first_page;
	uint64_t pages;
	uint32_t tries; /* failed ones */
};

#define HGM_PREFETCH_MAX 4096

struct hgm_fill {
	/* Under the work queue's lock. */
	uint64_t next; /* page */
	uint64_t end;
	/* If not empty, fill has failed somewhere in [low, high), and a round follows. */
	uint64_t low;
	uint64_t high;
	uint64_t rest;		  /* in a round: where fill continues after the round */
	bool again;		  /* this is a round */
	bool onwards;		  /* a round has just ended: fill outside a round is next */
	uint32_t tries;		  /* consecutive rounds without success */
	uint32_t round_us;	  /* how long the next round waits when nothing else is left */
	uint32_t pause_us;	  /* pause after failures, which grows; 0: none */
	uint64_t paused_ns;	  /* when the pause began */
	uint64_t resume_ns;	  /* when it ends; 0: fill does not pause */
	_Atomic uint32_t through; /* read-through requests of a snapshot; fill yields to them */
	_Atomic uint64_t through_ended_ns; /* when the last of them ended */
	_Atomic uint64_t failed;	   /* failed requests that must be made again */
	struct hgm_fill_control control;
	struct hgm_fill_near near;
	struct hgm_prefetch *prefetch;
	unsigned int prefetch_first;
	struct hgm_region *link; /* the ring of its fill source; NULL: not in it */
	struct hgm_fill_source *source;

	_Atomic uint64_t *block_urgent; /* bitmap: a thread waits for the whole block */
	struct hgm_readahead readahead; /* faults on pages that are not present */

	pthread_mutex_t retry_lock; /* one hgm_region_retry() at a time */
	_Atomic uint64_t retried;   /* first page + 1 of the piece that loses its poison; 0: none */

	struct hgm_region *next_ending; /* alias.c */
};

#endif
