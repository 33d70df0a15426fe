/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another process, which has given us its userfaultfd, and its address space.
 */
#ifndef HGM_LIB_REMOTE_H
#define HGM_LIB_REMOTE_H

#include <hgm/peer.h>
#include <hgm/region.h>

#include "region/hgm.h"

struct hgm_peer {
	struct hgm_space space;
	struct hgm *h;
	struct hgm_fault_thread *thread;
	struct hgm_peer *next; /* of the engine's */
};

/*
 * process.c: open the address space of a process that has made userfaultfd @uffd. @pidfd, or @pid
 * if that is not 0, says which process it is. What needs rights that we lack is left out, and the
 * space says why. -errno with text: nothing is left open.
 */
int hgm_remote_open(struct hgm_space *s, int uffd, int pidfd, int pid);
void hgm_remote_close(struct hgm_space *s);

/*
 * peer.c: the address space that a region's options mean, and whether it can have that region.
 * -errno with text.
 */
struct hgm_space *hgm_peer_space(struct hgm *h, const struct hgm_region_opts *o);
int hgm_peer_check(const struct hgm *h, const struct hgm_region_opts *o);

/* peer.c: start and stop serving it. hgm_peer_begin() gets options that were checked. */
int hgm_peer_begin(struct hgm_peer **out, struct hgm *h, const struct hgm_peer_opts *o);
void hgm_peer_end(struct hgm_peer *p);

#endif
