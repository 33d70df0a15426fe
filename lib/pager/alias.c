/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults of the library's own threads on holes of aliases. Aliases are registered for missing
 * faults. An owner of a claim that writes the source's answer to a dropped page faults there, and
 * waits until the page is noted as discarded (discard.c). The events thread serves these faults. It
 * never writes to an alias.
 */
#include "alias.h"
#include "events.h"
#include "events_state.h"
#include "fill.h"
#include "install/discard.h"
#include "install/resolve.h"
#include "kernel/sys.h"
#include "region/hgm.h"

#define READ_BATCH   16
#define RETRY_MIN_NS 50000
#define RETRY_MAX_NS 10000000

static bool has_alias(const struct hgm_region *r, uint64_t addr)
{
	return r->alias && addr - (uintptr_t)hgm_region_alias_start(r) < hgm_region_mapped(r);
}

/* Inside a read-side section. */
static struct hgm_region *find_by_alias(const struct hgm_table *t, uint64_t addr)
{
	for (unsigned int i = 0; i < t->count; i++)
		if (has_alias(t->region[i], addr))
			return t->region[i];
	return NULL;
}

static int serve_hole(struct hgm_region *r, uint64_t addr)
{
	uint64_t page = (addr - (uintptr_t)r->alias) >> HGM_PAGE_SHIFT;

	hgm_discard_found(r, page);
	return hgm_resolve_fill_hole(r, page);
}

/* A region that is being destroyed is in no table, but waits for owners that write to its alias. */
static int serve_ending(struct hgm *h, uint64_t addr)
{
	struct hgm_events *e = h->events;
	struct hgm_region *r;
	int rc = 0;

	pthread_mutex_lock(&e->ending_lock);
	r = e->ending;
	while (r && !has_alias(r, addr))
		r = r->fill->next_ending;
	if (r)
		rc = serve_hole(r, addr);
	pthread_mutex_unlock(&e->ending_lock);
	addr &= ~(HGM_PAGE_BYTES - 1);
	if (!r) /* not served yet, or no longer */
		hgm_sys->uffd_wake(hgm_uffd_fd(h->alias_uffd), (void *)(uintptr_t)addr,
				   HGM_PAGE_BYTES);
	return rc;
}

/* -EAGAIN: try again later. */
static int serve_alias(struct hgm *h, uint64_t addr)
{
	struct hgm_region *r;
	int rc;

	hgm_rcu_read_lock();
	r = find_by_alias(atomic_load_explicit(&h->table, memory_order_acquire), addr);
	if (r)
		hgm_region_pin(r);
	hgm_rcu_read_unlock();
	if (!r)
		return serve_ending(h, addr);
	rc = serve_hole(r, addr);
	hgm_region_unpin(r);
	return rc;
}

void hgm_events_ending(struct hgm_region *r)
{
	struct hgm_events *e = r->h->events;

	pthread_mutex_lock(&e->ending_lock);
	r->fill->next_ending = e->ending;
	e->ending = r;
	pthread_mutex_unlock(&e->ending_lock);
}

void hgm_events_ended(struct hgm_region *r)
{
	struct hgm_events *e = r->h->events;
	struct hgm_region **at = &e->ending;

	pthread_mutex_lock(&e->ending_lock);
	while (*at != r)
		at = &(*at)->fill->next_ending;
	*at = r->fill->next_ending;
	pthread_mutex_unlock(&e->ending_lock);
}

void hgm_alias_read(struct hgm *h, struct hgm_alias_retries *again)
{
	struct hgm_uffd_event ev[READ_BATCH];
	int n = hgm_uffd_read(h->alias_uffd, ev, READ_BATCH);

	for (int i = 0; i < n; i++) {
		if (ev[i].type != HGM_UFFD_EVENT_PAGEFAULT || !serve_alias(h, ev[i].addr))
			continue;
		if (again->count < HGM_ALIAS_RETRIES_MAX)
			again->addr[again->count++] = ev[i].addr;
		else /* the thread faults again, and the kernel keeps the message */
			hgm_sys->uffd_wake(hgm_uffd_fd(h->alias_uffd),
					   (void *)(uintptr_t)(ev[i].addr & ~(HGM_PAGE_BYTES - 1)),
					   HGM_PAGE_BYTES);
	}
}

void hgm_alias_retry(struct hgm *h, struct hgm_alias_retries *again)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < again->count; i++)
		if (serve_alias(h, again->addr[i]))
			again->addr[left++] = again->addr[i];
	again->count = left;
	again->backoff_ns =
		again->backoff_ns * 2 < RETRY_MAX_NS ? again->backoff_ns * 2 : RETRY_MAX_NS;
	if (!left)
		again->backoff_ns = RETRY_MIN_NS;
}

int hgm_events_watch_alias(struct hgm_region *r)
{
	uint64_t ioctls;

	if (!r->alias)
		return 0;
	return hgm_uffd_register(r->h->alias_uffd, hgm_region_alias_start(r), hgm_region_mapped(r),
				 HGM_UFFD_MISSING, &ioctls);
}
