/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The processes whose memory an engine serves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pager/pager.h"
#include "remote.h"
#include "util/error.h"

struct hgm_space *hgm_peer_space(struct hgm *h, const struct hgm_region_opts *o)
{
	return o->peer ? &o->peer->space : &h->space;
}

int hgm_peer_check(const struct hgm *h, const struct hgm_region_opts *o)
{
	const struct hgm_peer *p = o->peer;

	if (!p != (o->backing != HGM_BACKING_PEER))
		return hgm_fail(-EINVAL,
				"hgm_region_create: HGM_BACKING_PEER and peer go together");
	if (!p)
		return 0;
	if (p->h != h)
		return hgm_fail(-EINVAL, "hgm_region_create: the peer belongs to another engine");
	if (atomic_load_explicit(&p->space.gone, memory_order_acquire) ||
	    hgm_space_is_gone(&p->space))
		return hgm_fail(-ESRCH, "hgm_region_create: process %d is gone", p->space.pid);
	if (o->require & HGM_REQUIRE_HUGE && p->space.collapse_error)
		return hgm_fail(-EOPNOTSUPP,
				"hgm_region_create: memory of process %d cannot be made huge: "
				"process_madvise: %s (HGM_REQUIRE_HUGE)",
				p->space.pid, hgm_errno_name(p->space.collapse_error));
	return 0;
}

static void add(struct hgm_peer *p)
{
	pthread_mutex_lock(&p->h->table_lock);
	p->next = p->h->peers;
	p->h->peers = p;
	pthread_mutex_unlock(&p->h->table_lock);
}

static void take_out(struct hgm_peer *p)
{
	struct hgm_peer **link = &p->h->peers;

	pthread_mutex_lock(&p->h->table_lock);
	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	pthread_mutex_unlock(&p->h->table_lock);
}

int hgm_peer_begin(struct hgm_peer **out, struct hgm *h, const struct hgm_peer_opts *o)
{
	struct hgm_peer *p = aligned_alloc(_Alignof(struct hgm_peer), sizeof(*p));
	int rc;

	if (!p)
		return hgm_fail(-ENOMEM, "hgm_peer_create: out of memory");
	memset(p, 0, sizeof(*p));
	p->h = h;
	rc = hgm_remote_open(&p->space, o->uffd, o->pidfd, o->pid);
	if (!rc) {
		rc = hgm_faults_serve(&p->thread, h, &p->space);
		if (rc)
			hgm_remote_close(&p->space);
	}
	if (rc) {
		free(p);
		return rc;
	}
	add(p);
	*out = p;
	return 0;
}

void hgm_peer_end(struct hgm_peer *p)
{
	hgm_faults_serve_no_more(p->thread);
	take_out(p);
	hgm_remote_close(&p->space);
	free(p);
}
