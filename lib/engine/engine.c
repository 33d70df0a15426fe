/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine: options, userfaultfds, threads, waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hgm/peer.h>

#include "collapse/collapse.h"
#include "engine.h"
#include "kernel/sys.h"
#include "pager/events.h"
#include "pager/pager.h"
#include "region/hgm.h"
#include "uffd/hugepage.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"
#include "util/thread.h"

#define DEFAULT_WORKERS		  3
#define DEFAULT_SPIN_US		  100
#define DEFAULT_RETRIES		  64 /* about 3 seconds, see backoff_us() in failure.c */
#define DEFAULT_OUTAGE_MS	  30000
#define OUTAGE_MAX_MS		  (UINT64_C(1) << 32) /* 49 days */
#define DEFAULT_RETRY_FIRST_US	  1000
#define FAULT_THREADS_AUTO_MAX	  8
#define COLLAPSE_THREADS_AUTO_MAX 4
#define RETRY_FIRST_MAX_US	  1000000
#define SPIN_MAX_US		  1000000

#define WANTED_FEATURES                                                             \
	(HGM_UFFD_FEATURE_MISSING_HUGETLBFS | HGM_UFFD_FEATURE_MISSING_SHMEM |      \
	 HGM_UFFD_FEATURE_MINOR_HUGETLBFS | HGM_UFFD_FEATURE_MINOR_SHMEM |          \
	 HGM_UFFD_FEATURE_EXACT_ADDRESS | HGM_UFFD_FEATURE_POISON |                 \
	 HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP | HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
	 HGM_UFFD_FEATURE_EVENT_REMOVE | HGM_UFFD_FEATURE_EVENT_UNMAP |             \
	 HGM_UFFD_FEATURE_EVENT_REMAP)

static int check_opts(struct hgm_opts *o)
{
	unsigned int cpus = hgm_cpus();

	if (o->flags & ~HGM_ALLOW_USER_MODE_ONLY)
		return hgm_fail(-EINVAL, "hgm_create: unknown flags 0x%x", o->flags);
	if (o->fault_threads > HGM_THREADS_MAX || o->workers > HGM_THREADS_MAX ||
	    o->collapse_threads > HGM_COLLAPSERS_MAX)
		return hgm_fail(-EINVAL,
				"hgm_create: %u fault threads, %u workers, %u threads for "
				"collapse; at most %d, %d and %d are allowed",
				o->fault_threads, o->workers, o->collapse_threads, HGM_THREADS_MAX,
				HGM_THREADS_MAX, HGM_COLLAPSERS_MAX);
	if (o->spin_us > SPIN_MAX_US && o->spin_us != HGM_SPIN_NEVER)
		return hgm_fail(-EINVAL, "hgm_create: spin_us %u is more than %d", o->spin_us,
				SPIN_MAX_US);
	if (o->retry_first_us > RETRY_FIRST_MAX_US)
		return hgm_fail(-EINVAL, "hgm_create: retry_first_us %u is more than %d",
				o->retry_first_us, RETRY_FIRST_MAX_US);
	if (o->log_level > HGM_LOG_INFO)
		return hgm_fail(-EINVAL, "hgm_create: log_level %u is more than HGM_LOG_INFO",
				o->log_level);
	if (o->outage_ms > OUTAGE_MAX_MS && o->outage_ms != HGM_OUTAGE_NEVER)
		return hgm_fail(-EINVAL, "hgm_create: outage_ms %llu is more than 2^32",
				(unsigned long long)o->outage_ms);
	if (!o->fault_threads) {
		o->fault_threads = cpus / 2 ? cpus / 2 : 1;
		if (o->fault_threads > FAULT_THREADS_AUTO_MAX)
			o->fault_threads = FAULT_THREADS_AUTO_MAX;
	}
	if (!o->collapse_threads) {
		o->collapse_threads = cpus / 4 ? cpus / 4 : 1;
		if (o->collapse_threads > COLLAPSE_THREADS_AUTO_MAX)
			o->collapse_threads = COLLAPSE_THREADS_AUTO_MAX;
	}
	if (!o->workers)
		o->workers = DEFAULT_WORKERS;
	if (o->spin_us == HGM_SPIN_NEVER || (!o->spin_us && cpus == 1))
		o->spin_us = 0;
	else if (!o->spin_us)
		o->spin_us = DEFAULT_SPIN_US;
	if (o->retries == HGM_RETRY_NEVER)
		o->retries = 0;
	else if (!o->retries)
		o->retries = DEFAULT_RETRIES;
	if (o->outage_ms == HGM_OUTAGE_NEVER)
		o->outage_ms = 0;
	else if (!o->outage_ms)
		o->outage_ms = DEFAULT_OUTAGE_MS;
	if (!o->retry_first_us)
		o->retry_first_us = DEFAULT_RETRY_FIRST_US;
	return 0;
}

static int open_uffds(struct hgm *h)
{
	struct hgm_uffd_opts uo = {
		.size = sizeof(uo),
		.optional = WANTED_FEATURES,
		.flags = h->opts.flags & HGM_ALLOW_USER_MODE_ONLY ? HGM_UFFD_ALLOW_USER_MODE_ONLY
								  : 0,
	};
	struct hgm_uffd **first = &h->space.uffd[0];
	uint64_t more;
	int rc = hgm_uffd_open(first, &uo);

	more = rc ? 0 : hgm_choice_features(hgm_uffd_supported(*first));
	if (more) {
		hgm_uffd_close(*first);
		*first = NULL;
		uo.optional |= more;
		rc = hgm_uffd_open(first, &uo);
	}
	for (unsigned int i = 1; !rc && i < h->space.stripes; i++)
		rc = hgm_uffd_open(&h->space.uffd[i], &uo);
	if (rc)
		return rc;
	/*
	 * WP_UNPOPULATED shows that the kernel is Linux 6.4 or later, which CONTINUE needs to
	 * install write-protected pages. The feature is not enabled: it would leave markers in the
	 * holes of anonymous memory (memory.c). They are not needed, because anonymous memory is
	 * registered for missing pages. If the same bit is enabled, it means MINOR_HUGETLBFS_HGM,
	 * and the kernel is older.
	 */
	h->abilities.features = hgm_uffd_features(h->space.uffd[0]);
	h->abilities.can_continue_wp =
		hgm_uffd_supported(h->space.uffd[0]) & HGM_UFFD_FEATURE_WP_UNPOPULATED &&
		!hgm_choice_by_feature(&h->abilities);
	h->user_mode_only = hgm_uffd_get_via(h->space.uffd[0]) == HGM_UFFD_VIA_USER_MODE_ONLY;
	h->can_poison = hgm_uffd_features(h->space.uffd[0]) & HGM_UFFD_FEATURE_POISON;
	rc = hgm_faults_init(h);
	return rc ? rc : hgm_events_start(h, &uo);
}

static void free_engine(struct hgm *h)
{
	hgm_events_stop(h);
	hgm_events_destroy(h);
	hgm_faults_destroy(h);
	for (unsigned int i = 0; i < h->space.stripes; i++)
		hgm_uffd_close(h->space.uffd[i]);
	if (h->event_fd >= 0)
		hgm_sys->close(h->event_fd);
	if (h->stop_fd >= 0)
		hgm_sys->close(h->stop_fd);
	hgm_requests_destroy(h);
	hgm_work_destroy(h);
	hgm_collapser_destroy(h);
	hgm_space_close(&h->space);
	pthread_mutex_destroy(&h->abilities.lock);
	pthread_mutex_destroy(&h->gate.lock);
	pthread_mutex_destroy(&h->table_lock);
	pthread_mutex_destroy(&h->done_lock);
	pthread_cond_destroy(&h->done_cond);
	free(h);
}

static void log_engine(const struct hgm *h)
{
	hgm_log(&h->log, HGM_LOG_INFO, "engine: %u fault threads, %u workers", h->space.stripes,
		h->opts.workers);
	if (h->user_mode_only)
		hgm_log(&h->log, HGM_LOG_WARNING,
			"the userfaultfd serves faults of user mode only: KVM and system calls "
			"that touch absent memory fail with EFAULT; hgm-probe(1) shows what would "
			"help");
}

static const struct hgm_region_ops region_ops = {
	.arrived = hgm_collapse_arrived,
	.filled = hgm_collapse_filled,
	.leave = hgm_collapse_leave,
	.map_left = hgm_collapse_map_left,
	.state = hgm_collapse_state,
	.touched = hgm_collapse_touched,
	.discarded = hgm_collapse_discarded,
	.settle_events = hgm_events_settle,
	.not_urgent = hgm_work_not_urgent,
};

int hgm_create(struct hgm **out, const struct hgm_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_opts o;
	struct hgm *h;
	int rc;

	if (!out)
		return hgm_fail(-EINVAL, "hgm_create: out is NULL");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_opts, outage_ms), opts,
			 "hgm_create");
	if (!rc)
		rc = check_opts(&o);
	if (rc)
		return rc;
	if (sysconf(_SC_PAGESIZE) != HGM_PAGE_BYTES)
		return hgm_fail(-EOPNOTSUPP,
				"hgm_create: the page size is %ld bytes; libhgm supports only 4096",
				sysconf(_SC_PAGESIZE));
	h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);
	if (!h)
		return hgm_fail(-ENOMEM, "hgm_create: out of memory");
	memset(h, 0, sizeof(*h));
	h->ops = &region_ops;
	h->opts = o;
	h->log.write = o.log;
	h->log.user = o.log_user;
	h->log.level = o.log_level;
	h->stats.owned = o.fault_threads;
	h->space.stripes = o.fault_threads;
	pthread_mutex_init(&h->abilities.lock, NULL);
	pthread_mutex_init(&h->gate.lock, NULL);
	pthread_mutex_init(&h->table_lock, NULL);
	pthread_mutex_init(&h->done_lock, NULL);
	hgm_cond_init(&h->done_cond);
	h->event_fd = hgm_sys->eventfd();
	h->stop_fd = hgm_sys->eventfd();
	/*
	 * Open /proc/self/mem and pagemap now, because later the process may have lost /proc or its
	 * rights. Without mem, a snapshot of anonymous memory is refused.
	 */
	hgm_space_open(&h->space, "/proc/self");
	atomic_init(&h->table, &h->tables[0]);
	if (h->event_fd < 0 || h->stop_fd < 0) {
		rc = h->event_fd < 0 ? h->event_fd : h->stop_fd;
		hgm_fail(rc, "hgm_create: eventfd: %s; " HGM_FD_HINT, hgm_errno_name(rc));
	} else if ((rc = hgm_rcu_init())) {
		hgm_fail(rc, "hgm_create: cannot start a thread: %s; " HGM_THREAD_HINT,
			 hgm_errno_name(rc));
	} else if (hgm_work_init(h) || hgm_events_init(h) || hgm_collapser_init(h) ||
		   hgm_requests_init(h)) {
		rc = hgm_fail(-ENOMEM, "hgm_create: out of memory");
	} else {
		rc = open_uffds(h);
	}
	if (rc) {
		free_engine(h);
		return rc;
	}
	log_engine(h);
	*out = h;
	return 0;
}

static void stop_threads(struct hgm *h)
{
	uint64_t one = 1;

	atomic_store_explicit(&h->gate.stopping, true, memory_order_release);
	hgm_sys->write(h->stop_fd, &one, sizeof(one));
	hgm_work_stop(h);
	hgm_collapser_stop(h);
	hgm_faults_join(h);
	hgm_workers_join(h);
	hgm_collapser_join(h);
}

/* Make the engine startable again after some thread could not be started. */
static void unstart(struct hgm *h)
{
	uint64_t drained;

	stop_threads(h);
	hgm_sys->read(h->stop_fd, &drained, sizeof(drained));
	hgm_events_take_faults(h);
	atomic_store_explicit(&h->gate.stopping, false, memory_order_release);
	atomic_store_explicit(&h->running, false, memory_order_release);
}

/* Make faults that were raised before the fault threads existed be raised again. */
static void wake_all_regions(struct hgm *h)
{
	struct hgm_table *t;

	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++)
		hgm_region_wake_all(t->region[i]);
	hgm_rcu_read_unlock();
}

int hgm_start(struct hgm *h)
{
	HGM_UNCANCELLED;
	int rc = 0;

	if (!h)
		return hgm_fail(-EINVAL, "hgm_start: the engine is NULL");
	if (atomic_exchange_explicit(&h->running, true, memory_order_acq_rel))
		return hgm_fail(-EALREADY, "hgm_start: the engine was already started");
	/* All threads or none: nothing begins before the gate opens. */
	pthread_mutex_lock(&h->gate.lock);
	hgm_events_give_faults(h);
	rc = hgm_collapser_start(h);
	if (!rc)
		rc = hgm_workers_start(h);
	if (!rc)
		rc = hgm_faults_start(h);
	if (rc)
		atomic_store_explicit(&h->gate.stopping, true, memory_order_release);
	pthread_mutex_unlock(&h->gate.lock);
	if (rc)
		unstart(h);
	else
		wake_all_regions(h);
	return rc;
}

void hgm_destroy(struct hgm *h)
{
	HGM_UNCANCELLED;
	struct hgm_region *region[HGM_REGIONS_MAX];
	const struct hgm_table *t;
	unsigned int count;

	if (!h)
		return;
	/* Regions first, while threads can still finish what is in progress. */
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	count = t->count;
	memcpy(region, t->region, count * sizeof(region[0]));
	hgm_regions_end(region, count);
	while (h->peers)
		hgm_peer_destroy(h->peers);
	stop_threads(h);
	hgm_log_flush(&h->log);
	free_engine(h);
}

int hgm_event_fd(const struct hgm *h)
{
	return h ? h->event_fd : hgm_fail(-EINVAL, "hgm_event_fd: the engine is NULL");
}
