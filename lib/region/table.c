/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine's regions by address space, and in it by address. Readers search a table inside a
 * read-side section. A writer fills the other one of two tables, publishes it, and waits until no
 * reader uses the old one. Removing a region cannot fail.
 */
#include <errno.h>
#include <string.h>

#include "hgm.h"

/* Does the region begin at @addr of @space, or before it? */
static bool begins_by(const struct hgm_region *r, const struct hgm_space *space, uint64_t addr)
{
	if (r->view.space != space)
		return (uintptr_t)r->view.space < (uintptr_t)space;
	return (uintptr_t)r->view.start <= addr;
}

struct hgm_region *hgm_table_find(const struct hgm_table *t, const struct hgm_space *space,
				  uint64_t addr)
{
	unsigned int low = 0, high = t->count;
	struct hgm_region *r;

	while (low < high) { /* the first region that begins after @addr */
		unsigned int mid = low + (high - low) / 2;

		if (begins_by(t->region[mid], space, addr))
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return NULL;
	r = t->region[low - 1];
	return r->view.space == space && addr - (uintptr_t)r->view.base < r->mapped ? r : NULL;
}

/* The table that readers do not see. Under the table lock. */
static struct hgm_table *spare(struct hgm *h, struct hgm_table **now)
{
	*now = atomic_load_explicit(&h->table, memory_order_relaxed);
	return *now == &h->tables[0] ? &h->tables[1] : &h->tables[0];
}

/* Under the table lock. Afterwards no reader uses the old table, which is the next spare. */
static void publish(struct hgm *h, struct hgm_table *t)
{
	atomic_store_explicit(&h->table, t, memory_order_release);
	hgm_rcu_synchronize();
}

int hgm_table_add(struct hgm *h, struct hgm_region *r)
{
	struct hgm_table *now, *t;
	unsigned int at = 0;

	pthread_mutex_lock(&h->table_lock);
	t = spare(h, &now);
	if (now->count == HGM_REGIONS_MAX) {
		pthread_mutex_unlock(&h->table_lock);
		return -ENOSPC;
	}
	while (at < now->count &&
	       begins_by(now->region[at], r->view.space, (uintptr_t)r->view.start))
		at++;
	memcpy(t->region, now->region, at * sizeof(t->region[0]));
	t->region[at] = r;
	memcpy(t->region + at + 1, now->region + at, (now->count - at) * sizeof(t->region[0]));
	t->count = now->count + 1;
	publish(h, t);
	pthread_mutex_unlock(&h->table_lock);
	return 0;
}

void hgm_table_remove(struct hgm *h, struct hgm_region *r)
{
	struct hgm_table *now, *t;

	pthread_mutex_lock(&h->table_lock);
	t = spare(h, &now);
	t->count = 0;
	for (unsigned int i = 0; i < now->count; i++)
		if (now->region[i] != r)
			t->region[t->count++] = now->region[i];
	publish(h, t);
	pthread_mutex_unlock(&h->table_lock);
	hgm_region_gone(r); /* it may have been the last one that was incomplete */
}
