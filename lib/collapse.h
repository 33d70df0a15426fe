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
	pthread_t thread;
	int pagemap; /* -1: no PAGEMAP_SCAN here */
};

void *hgm_collapser_thread(void *arg);
void hgm_collapser_init(struct hgm *h);
void hgm_collapser_destroy(struct hgm *h);
void hgm_collapser_stop(struct hgm *h);
void hgm_collapser_kick(struct hgm *h); /* look at all regions again */
void hgm_collapse_want(struct hgm_region *r, uint64_t block);
void hgm_collapse_again(struct hgm_region *r, uint64_t block);

#endif
