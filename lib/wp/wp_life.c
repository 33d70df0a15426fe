/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which wp owner a region has, how it begins and ends, and what becomes of huge mappings meanwhile.
 * wp.c explains the rule that all this serves.
 */
#include <errno.h>

#include "collapse/collapse.h"
#include "install/wp.h"
#include "install/resolve.h"
#include "pager/events.h"
#include "region/hgm.h"
#include "util/error.h"

static int check_kernel(struct hgm_region *r)
{
	uint64_t have = hgm_uffd_features(r->view.space->uffd[0]);

	if (hgm_space_is_gone(r->view.space)) {
		hgm_space_vanished(r->view.space);
		return hgm_fail(-ECANCELED, "write-protection: process %d is gone",
				r->view.space->pid);
	}
	/*
	 * Another process need not have asked for write-protection. But with these features the
	 * kernel reports no writes, or protects what is not there.
	 */
	if (hgm_region_foreign(r) &&
	    have & (HGM_UFFD_FEATURE_WP_ASYNC | HGM_UFFD_FEATURE_WP_UNPOPULATED))
		return hgm_fail(-EOPNOTSUPP, "write-protection: the process's userfaultfd has "
					     "WP_ASYNC or WP_UNPOPULATED");
	if (hgm_region_foreign(r))
		return 0;
	if (!(have & HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		return hgm_fail(-EOPNOTSUPP, "write-protection: this kernel's userfaultfd has none "
					     "(Linux 5.7 or later has it)");
	if (r->backing != HGM_BACKING_ANON && !(have & HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		return hgm_fail(
			-EOPNOTSUPP,
			"write-protection: this kernel's userfaultfd has no WP_HUGETLBFS_SHMEM "
			"(Linux 5.19 or later has it); only anon can be protected here");
	return 0;
}

int hgm_wp_check_faults(const struct hgm_region *r, const char *name)
{
	if (!r->h->user_mode_only || hgm_region_foreign(r))
		return 0;
	return hgm_fail(-EPERM,
			"%s: this engine's userfaultfd serves faults of user mode only "
			"(HGM_ALLOW_USER_MODE_ONLY): system calls and KVM that write to protected "
			"memory would fail with EFAULT; hgm-probe(1) shows what would help",
			name);
}

/* Everything that belongs to the wp owner must be there before the wp owner is visible. */
static int publish(struct hgm_region *r, struct hgm_wp *g, void *user)
{
	const struct hgm_wp *other = hgm_wp_of(r);
	int rc;

	if (atomic_load_explicit(&r->dying, memory_order_acquire))
		return hgm_fail(-ECANCELED, "%s: the region is being destroyed", g->name);
	if (other)
		return hgm_fail(-EBUSY, "%s: the region is already under %s", g->name, other->name);
	rc = hgm_wp_make(r);
	if (rc)
		return rc;
	hgm_wp_become(r, g, user);
	return 0;
}

int hgm_wp_begin(struct hgm_region *r, struct hgm_wp *g, void *user)
{
	int rc = check_kernel(r);

	if (rc)
		return rc;
	/* Memory that others have mapped over the region must not be registered with the rest. */
	hgm_events_settle(r->h, r->view.space);
	pthread_mutex_lock(&r->h->table_lock);
	rc = publish(r, g, user);
	pthread_mutex_unlock(&r->h->table_lock);
	if (rc)
		return rc;
	/* From now on all SRCU sections are counted. */
	hgm_rcu_synchronize();
	/*
	 * These blocks will not be collapsed, and pages that are mapped later would count as
	 * written.
	 */
	hgm_collapse_map_all_left(r);
	return 0;
}

struct hgm_wp *hgm_wp_get(struct hgm_region *r, const struct hgm_wp_ops *ops)
{
	struct hgm_wp *g;

	pthread_mutex_lock(&r->h->table_lock); /* the wp owner cannot end meanwhile */
	g = hgm_wp_of(r);
	if (g && g->ops != ops)
		g = NULL;
	if (g)
		atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&r->h->table_lock);
	return g;
}

void hgm_wp_put(struct hgm_wp *g)
{
	if (atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) == 1)
		g->ops->free(g);
}

void hgm_wp_region_ends(struct hgm_region *r)
{
	struct hgm_wp *g;

	pthread_mutex_lock(&r->h->table_lock); /* the wp owner cannot end meanwhile */
	g = hgm_wp_of(r);
	if (g && g->ops->hurry) {
		g->ops->hurry(g);
		g = NULL;
	}
	if (g)
		atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&r->h->table_lock);
	if (!g)
		return;
	g->ops->leave(g, r);
	hgm_wp_put(g);
}

void hgm_wp_map_again(struct hgm_region *r, uint64_t block)
{
	uint64_t pages = r->block_bytes >> HGM_PAGE_SHIFT;
	bool unmapped = hgm_collapse_suspend(r, block) || hgm_collapse_may_be_huge(r, block);

	/* Write-protection of hugetlb memory unmaps nothing. */
	if (unmapped && r->alias && r->backing != HGM_BACKING_HUGETLB &&
	    r->h->abilities.can_continue_wp)
		hgm_resolve_remap(r, block * pages, pages);
}

void hgm_wp_release_block(struct hgm_region *r, uint64_t block)
{
	/*
	 * seq_cst: either a thread that wants the block collapsed sees that it is no longer held
	 * back, or we see that the block is wanted.
	 */
	hgm_wp_unhold(r, block);
	hgm_collapse_resume(r, block);
}

void hgm_wp_unprotect(struct hgm_region *r, uint64_t page, uint64_t pages)
{
	uint64_t block_pages = r->block_bytes >> HGM_PAGE_SHIFT, end = page + pages;
	int rc = 0;

	/* What another process keeps from being unprotected is unprotected by a write to it. */
	while (page < end && !(rc && hgm_region_foreign(r))) {
		uint64_t first = page, block = page / block_pages;

		while (page < end && hgm_wp_may_protect(r, block))
			page = ++block * block_pages;
		page = page < end ? page : end;
		if (page > first)
			rc |= hgm_wp_ioctl(r, first, page - first, 0);
		else
			page = (block + 1) * block_pages;
	}
	if (rc)
		hgm_region_wake_all(r);
}

/* Remove the wp owner last: the next wp owner must find no trace of it. */
void hgm_wp_end(struct hgm_region *r)
{
	hgm_wp_clear_pages(r, 0, r->mapped >> HGM_PAGE_SHIFT);
	hgm_wp_resume(r);
	hgm_wp_unprotect(r, 0, r->mapped >> HGM_PAGE_SHIFT);
	for (uint64_t block = 0; block < r->blocks; block++)
		hgm_wp_release_block(r, block);
	pthread_mutex_lock(&r->h->table_lock);
	hgm_wp_become(r, NULL, NULL);
	pthread_mutex_unlock(&r->h->table_lock);
	hgm_rcu_synchronize();
}
