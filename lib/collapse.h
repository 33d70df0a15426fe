/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The collapser of an engine: a thread that makes full blocks huge.
 */
#ifndef HGM_LIB_COLLAPSE_H
#define HGM_LIB_COLLAPSE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct hgm;
struct hgm_region;

struct hgm_collapser {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	bool wanted;
	bool resting; /* until some blocks more are full */
	pthread_t thread;
	int pagemap; /* -1: no PAGEMAP_SCAN here */
};

/* collapser.c */
void *hgm_collapser_thread(void *arg);
void hgm_collapser_init(struct hgm *h);
void hgm_collapser_destroy(struct hgm *h);
void hgm_collapser_stop(struct hgm *h);
void hgm_collapser_kick(struct hgm *h); /* look at all regions again */

/* A block is full. */
void hgm_collapse_want(struct hgm_region *r, uint64_t block);

/* A last block that is not all there cannot be huge. */
bool hgm_collapse_can_be_huge(const struct hgm_region *r, uint64_t block);

/*
 * collapse_map.c: pages of a block have arrived by fill. True: their mapping is left to the
 * collapse of the block, and somebody calls one of the next two in the end.
 */
bool hgm_collapse_leave(struct hgm_region *r, uint64_t block);

/* The collapse has mapped it. */
void hgm_collapse_mapped(struct hgm_region *r, uint64_t block);

/* The collapse failed, or does not come: map what was left to it, if anything was. */
void hgm_collapse_map_left(struct hgm_region *r, uint64_t block);
void hgm_collapse_map_all_left(struct hgm_region *r);

bool hgm_collapse_is_left(const struct hgm_region *r, uint64_t block);

/* A page has been mapped of a block, which was in state @before: if it was huge, it is not now. */
void hgm_collapse_touched(struct hgm_region *r, uint64_t block, uint8_t before);

/* The collapser's own: try a block that was wanted. */
void hgm_collapse_visit(struct hgm_region *r, uint64_t block);

/* The same: a block's collapse came to @rc. True: it is to be tried again. */
bool hgm_collapse_outcome(struct hgm_region *r, uint64_t block, int rc, bool settled);
void hgm_collapse_due(struct hgm_region *r, uint64_t block);

/*
 * Write-protection takes a block's huge mapping away. False: it had none. Later the block may
 * become huge again.
 */
bool hgm_collapse_suspend(struct hgm_region *r, uint64_t block);
void hgm_collapse_resume(struct hgm_region *r, uint64_t block);

/* collapse_verify.c: a block more that smaps is to be asked about. */
void hgm_collapse_unverified(struct hgm_region *r);

/* Ask smaps, if it is time. True: blocks are to be tried again. */
bool hgm_collapse_verify(struct hgm_region *r);

#define HGM_COLLAPSE_TRIES 12 /* then the block is left split */

#endif
