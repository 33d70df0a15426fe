/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread of a snapshot. First it maps again what the instant has unmapped. Then it sweeps over
 * all pages.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "install/discard.h"
#include "region/hgm.h"
#include "snapshot.h"
#include "util/clock.h"

#define LONG_NAP_NS 20000000

/*
 * Protecting huge mappings has unmapped them: each access, even a read, would fault. The fault
 * threads serve accesses meanwhile.
 */
static void map_again(struct hgm_snapshot *s, struct hgm_part *part)
{
	struct hgm_region *r = part->r;

	for (uint64_t block = 0; block < r->blocks && !hgm_snapshot_failed(s); block++) {
		hgm_snapshot_check_alive(part);
		hgm_wp_map_again(r, block);
		hgm_snapshot_drain(s);
	}
}

static void run(struct hgm_snapshot *s)
{
	struct hgm_sweep sw = {
		.s = s, .buf = aligned_alloc(HGM_PAGE_BYTES, HGM_SWEEP_PAGES << HGM_PAGE_SHIFT)
	};

	hgm_snapshot_fail(s, sw.buf ? hgm_sink_begin(s) : -ENOMEM);
	hgm_snapshot_fail(s, hgm_ahead_begin(s));
	for (uint32_t i = 0; i < s->parts && !hgm_snapshot_failed(s); i++)
		map_again(s, &s->part[i]);
	for (uint32_t i = 0; i < s->parts && !hgm_snapshot_failed(s); i++)
		for (uint64_t block = 0; block < s->part[i].r->blocks && !hgm_snapshot_failed(s);
		     block++)
			hgm_sweep_block(&sw, &s->part[i], block);
	/* Threads that copy are in read-side sections. */
	hgm_rcu_synchronize();
	hgm_snapshot_drain(s);
	free(sw.buf);
}

static void wait_for_begin(struct hgm_snapshot *s)
{
	bool gone = false;

	pthread_mutex_lock(&s->lock);
	while (s->state == HGM_SNAPSHOT_PREPARED && !hgm_snapshot_failed(s) && !gone) {
		for (uint32_t i = 0; i < s->parts; i++)
			gone |= atomic_load_explicit(&s->part[i].r->dying, memory_order_acquire);
		if (!gone)
			hgm_cond_wait(&s->cond, &s->lock, hgm_now_ns() + LONG_NAP_NS);
	}
	/* Locked: hgm_snapshot_begin() must know whether this thread has ended. */
	if (gone)
		hgm_snapshot_fail(s, -ECANCELED);
	pthread_mutex_unlock(&s->lock);
}

void *hgm_snapshot_thread(void *arg)
{
	struct hgm_snapshot *s = arg;
	int rc;

	hgm_events_reader_begins();
	/* This thread must not preempt the thread that begins the snapshot and wakes it. */
	pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 });
	wait_for_begin(s);
	if (!hgm_snapshot_failed(s))
		run(s);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_wp_end(s->part[i].r);
	hgm_snapshot_drain(s);
	if (hgm_snapshot_failed(s))
		hgm_ahead_give_up(s);
	hgm_ahead_end(s);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_region_unpin(s->part[i].r);
	if (!hgm_snapshot_failed(s)) {
		rc = hgm_sink_finish(s);
		hgm_snapshot_fail(s, rc);
	}
	if (s->unowned) {
		pthread_mutex_lock(&s->lock); /* hgm_snapshot_begin() may still have it */
		pthread_mutex_unlock(&s->lock);
		pthread_detach(pthread_self());
		hgm_snapshot_free(s);
		return NULL;
	}
	pthread_mutex_lock(&s->lock);
	s->state = HGM_SNAPSHOT_ENDED;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}
