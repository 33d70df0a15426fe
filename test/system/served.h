/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process and an engine that serves its memory.
 */
#ifndef HGM_TEST_SERVED_H
#define HGM_TEST_SERVED_H

#include <hgm/peer.h>

#include "vmm.h"

#define WAIT_MS SMALLER(20000, 120000)

struct scene {
	struct vmm vmm;
	struct provider *provider;
	struct hgm *h;
	struct hgm_peer *peer;
	struct hgm_region *region;
};

struct hgm_peer *peer_of(struct hgm *h, const struct vmm *v);
struct hgm_peer_info peer_info(const struct hgm_peer *p);
struct hgm_region_opts peer_region_opts(const struct scene *s, uint32_t flags);

/* Serve a process that runs; one that is started; one with LENGTH bytes. */
#define LENGTH (16 * MIB)
#define PAGES  (LENGTH / PAGE)
void scene_engine(struct scene *s, enum provider_kind kind); /* no more than that */
void scene_serve(struct scene *s, enum provider_kind kind, uint32_t flags);
void scene_begin_with(struct scene *s, const struct vmm_opts *o, enum provider_kind kind,
		      uint32_t flags);
void scene_begin(struct scene *s, enum provider_kind kind, uint32_t flags);
void scene_end(struct scene *s);

/* @want bytes are huge, by the library's word, and by the process's own smaps. */
void assert_blocks_huge(struct scene *s, uint64_t want);

#endif
