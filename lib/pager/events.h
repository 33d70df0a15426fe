/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What userfaultfd reports besides faults of the guest's memory: changes of the address space, and
 * holes that the library itself runs into.
 */
#ifndef HGM_LIB_EVENTS_H
#define HGM_LIB_EVENTS_H

#include <stdint.h>

#include <hgm/uffd.h>

struct hgm;
struct hgm_region;
struct hgm_space;

/* -ENOMEM without text. */
int hgm_events_init(struct hgm *h);

/* -errno with text. */
int hgm_events_start(struct hgm *h, const struct hgm_uffd_opts *opts);
void hgm_events_stop(struct hgm *h);
void hgm_events_destroy(struct hgm *h);

/*
 * Until fault threads run, the events thread also reads the regions' userfaultfds: a thread that
 * changes the address space waits until the event has been read. Once hgm_events_give_faults()
 * returns, the events thread no longer reads them. Faults that it has read wait for a wake.
 */
void hgm_events_give_faults(struct hgm *h);
void hgm_events_take_faults(struct hgm *h);

/*
 * Start to read the events of another userfaultfd, or stop. -ENOSPC with text: there are too many.
 * Once hgm_events_remove() returns, its events are no longer read. Not on the events thread.
 */
int hgm_events_add(struct hgm *h, struct hgm_uffd *u);
void hgm_events_remove(struct hgm *h, struct hgm_uffd *u);

/* Wait until every event of @space that was read before has been handled. On callers' threads. */
void hgm_events_settle(struct hgm *h, struct hgm_space *space);

/*
 * Handle a message that is not a page fault, on the thread that has read it. hgm_event_mark() comes
 * first and marks the pages that the event removes. hgm_event() then handles the event. Neither
 * function allocates or waits for a grace period. hgm_event_mark() makes an event empty if it must
 * be ignored. @read_ns: the result of hgm_stamp_ns() before the message was read.
 */
void hgm_event_mark(struct hgm *h, const struct hgm_space *space, struct hgm_uffd_event *ev,
		    uint64_t read_ns);
void hgm_event(struct hgm *h, const struct hgm_space *space, const struct hgm_uffd_event *ev);

/*
 * moved.c: a region has lost all its memory, and is not served any more. A foreign address space is
 * gone, and with it the memory of all its regions. On its fault thread, for which nobody waits now.
 */
void hgm_region_lost_all(struct hgm_region *r);
void hgm_space_lost(struct hgm *h, struct hgm_space *space);

/* alias.c: serve missing faults of a region's alias; -errno with text. */
int hgm_events_watch_alias(struct hgm_region *r);

/*
 * alias.c: a region leaves the table, but owners of its pages may write to its alias until
 * destruction has waited for them. Their faults are served between these two calls.
 */
void hgm_events_ending(struct hgm_region *r);
void hgm_events_ended(struct hgm_region *r);

#endif
