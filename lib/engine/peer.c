/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Public functions for other processes whose memory an engine serves.
 */
#include <errno.h>

#include "engine.h"
#include "region/hgm.h"
#include "remote/remote.h"
#include "util/cancel.h"
#include "util/error.h"
#include "util/opts.h"

int hgm_peer_create(struct hgm_peer **out, struct hgm *h, const struct hgm_peer_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_peer_opts o;
	int rc;

	if (!out || !h || !opts)
		return hgm_fail(-EINVAL, "hgm_peer_create: %s is NULL",
				!out ? "out"
				: !h ? "the engine"
				     : "opts (uffd, and pidfd or pid are required)");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_peer_opts, reserved), opts,
			 "hgm_peer_create");
	if (rc)
		return rc;
	if (o.reserved)
		return hgm_fail(-EINVAL, "hgm_peer_create: reserved is not 0");
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		return hgm_fail(-EINVAL, "hgm_peer_create: call hgm_start() first");
	return hgm_peer_begin(out, h, &o);
}

void hgm_peer_destroy(struct hgm_peer *p)
{
	HGM_UNCANCELLED;
	struct hgm_region *region[HGM_REGIONS_MAX];
	const struct hgm_table *t;
	unsigned int count = 0;

	if (!p)
		return;
	pthread_mutex_lock(&p->h->table_lock);
	t = atomic_load_explicit(&p->h->table, memory_order_relaxed);
	for (unsigned int i = 0; i < t->count; i++)
		if (t->region[i]->view.space == &p->space)
			region[count++] = t->region[i];
	pthread_mutex_unlock(&p->h->table_lock);
	/* Regions first: their pages on the way still need the thread. */
	hgm_regions_end(region, count);
	hgm_peer_end(p);
}

int hgm_peer_get_info(const struct hgm_peer *p, struct hgm_peer_info *out)
{
	struct hgm_peer_info info;

	if (!p)
		return hgm_fail(-EINVAL, "hgm_peer_get_info: the peer is NULL");
	info = (struct hgm_peer_info){
		.size = sizeof(info),
		.pid = p->space.pid,
		.state = atomic_load_explicit(&p->space.gone, memory_order_acquire) ? -ESRCH : 0,
		.features = hgm_uffd_features(p->space.uffd[0]),
		.collapse_error = p->space.collapse_error,
		.verify_error = p->space.pagemap_fd < 0 ? p->space.pagemap_fd
				: p->space.scan_fd < 0	? -EOPNOTSUPP
							: 0,
	};
	return hgm_opts_out(out, &info, sizeof(info),
			    HGM_FIRST_SIZE(struct hgm_peer_info, verify_error),
			    "hgm_peer_get_info");
}
