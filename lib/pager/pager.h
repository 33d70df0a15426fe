/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pager moves pages from their sources into memory: fault threads, workers, requests, fill.
 * These are the functions of the pager that the engine calls. events.h and read_through.h have the
 * functions that other modules call.
 */
#ifndef HGM_LIB_PAGER_H
#define HGM_LIB_PAGER_H

#include <stdint.h>

struct hgm;
struct hgm_fault_thread;
struct hgm_region;
struct hgm_space;

int hgm_requests_init(struct hgm *h);
void hgm_requests_destroy(struct hgm *h);

/* Must be called before a region that copies is served. Returns -ENOMEM on failure. */
int hgm_requests_need_bounce(struct hgm *h);

/*
 * workers.c: allocate what the pager keeps of a region. Returns -ENOMEM on failure. hgm_fill_free()
 * must be called in this case, too.
 */
int hgm_fill_make(struct hgm_region *r);
void hgm_fill_free(struct hgm_region *r);

/* Returns -ENOMEM without text on failure. */
int hgm_work_init(struct hgm *h);
void hgm_work_destroy(struct hgm *h);
void hgm_work_stop(struct hgm *h);

/*
 * workers.c: start all workers. -errno with text: only some of them run. hgm_workers_join() waits
 * for those that run.
 */
int hgm_workers_start(struct hgm *h);
void hgm_workers_join(struct hgm *h);

/* Make the fault threads' state. Their userfaultfds must exist. -ENOMEM with text. */
int hgm_faults_init(struct hgm *h);
void hgm_faults_destroy(struct hgm *h);

/*
 * Start all fault threads. -errno with text: only some of them run. hgm_faults_join() waits for
 * those that were started.
 */
int hgm_faults_start(struct hgm *h);
void hgm_faults_join(struct hgm *h);

/*
 * Start to serve the faults of a foreign address space with a thread of its own, or stop. The
 * engine has been started. -errno with text.
 */
int hgm_faults_serve(struct hgm_fault_thread **out, struct hgm *h, struct hgm_space *space);
void hgm_faults_serve_no_more(struct hgm_fault_thread *f);

void hgm_work_add_region(struct hgm_region *r);
/* Drop all waiting requests of a dying region. None of them is run any more. */
void hgm_requests_remove(struct hgm_region *r);

/* No thread waits for a block any more. */
void hgm_work_not_urgent(struct hgm_region *r, uint64_t block);

/* Cancel all unanswered requests of a region, so that its source hurries. */
void hgm_requests_cancel(struct hgm_region *r);

/* How many failed requests of fill must be made again. */
uint64_t hgm_fill_failing(const struct hgm_region *r);

/*
 * How many microseconds @bytes will take to arrive; UINT64_MAX: not known. Takes the lock of the
 * work queue.
 */
uint64_t hgm_fill_remaining_us(struct hgm *h, uint64_t bytes);

#endif
