/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm_wait() and hgm_get_progress().
 */
#include <errno.h>

#include "collapse/collapse.h"
#include "install/resolve.h"
#include "pager/pager.h"
#include "region/hgm.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"

/* The result of hgm_get_progress(): the sums over all regions. */
static struct hgm_progress add_up(struct hgm *h)
{
	struct hgm_progress p = { .size = sizeof(p) };
	uint64_t open_pages = 0;
	struct hgm_table *t;

	p.complete = true;
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];

		p.total_bytes += r->length;
		p.present_bytes += hgm_map_present_pages(r->map) << HGM_PAGE_SHIFT;
		p.poisoned_bytes += hgm_region_poisoned_bytes(r);
		p.huge_bytes += hgm_region_huge_bytes(r);
		p.failing_requests += hgm_fill_failing(r);
		p.complete &= hgm_region_looks_complete(r);
		if (!(r->flags & HGM_REGION_NO_FILL))
			open_pages += atomic_load_explicit(&r->open_pages, memory_order_relaxed);
	}
	hgm_rcu_read_unlock();
	p.remaining_us = hgm_fill_remaining_us(h, open_pages << HGM_PAGE_SHIFT);
	p.failing_requests += atomic_load_explicit(&h->failing_requests, memory_order_relaxed);
	p.last_error = atomic_load_explicit(&h->last_error, memory_order_relaxed);
	return p;
}

int hgm_wait(struct hgm *h, int timeout_ms)
{
	uint64_t deadline = UINT64_MAX;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_wait: the engine is NULL");
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		return hgm_fail(-EINVAL, "hgm_wait: the engine was not started; call hgm_start()");
	if (timeout_ms >= 0)
		deadline = hgm_now_ns() + (uint64_t)timeout_ms * 1000000;
	if (timeout_ms ? !hgm_wait_for(h, hgm_all_complete, h, deadline) : !hgm_all_complete(h)) {
		struct hgm_progress p = add_up(h);

		return hgm_fail(
			-ETIMEDOUT,
			"hgm_wait: %llu of %llu bytes are present and %llu are huge after %d ms; "
			"%llu requests are failing, last error %s",
			(unsigned long long)p.present_bytes, (unsigned long long)p.total_bytes,
			(unsigned long long)p.huge_bytes, timeout_ms,
			(unsigned long long)p.failing_requests,
			p.last_error ? hgm_errno_name(p.last_error) : "none");
	}
	if (hgm_stat_read(&h->stats, HGM_STAT_POISONED_PAGES)) {
		struct hgm_progress p = add_up(h);

		if (p.poisoned_bytes)
			return hgm_fail(-EIO,
					"hgm_wait: %llu bytes could not be supplied and are "
					"poisoned; last error %s",
					(unsigned long long)p.poisoned_bytes,
					hgm_errno_name(p.last_error));
	}
	return 0;
}

int hgm_get_progress(struct hgm *h, struct hgm_progress *out)
{
	struct hgm_progress p;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_get_progress: the engine is NULL");
	p = add_up(h);
	return hgm_opts_out(out, &p, sizeof(p), HGM_FIRST_SIZE(struct hgm_progress, remaining_us),
			    "hgm_get_progress");
}
