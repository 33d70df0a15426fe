/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/stats.h - what an engine has done
 *
 * Counters only grow. They are read without stopping anything, each by itself.
 */
#ifndef HGM_STATS_H
#define HGM_STATS_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;

/*
 * A latency histogram: bucket 0 counts what took less than 256 ns, bucket i what took less than
 * 2^(8 + i) ns, the last one everything else (from 2^38 ns, 4.6 minutes, on).
 */
#define HGM_HIST_BUCKETS 32

struct hgm_hist {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	uint64_t bucket[HGM_HIST_BUCKETS];
};

/**
 * struct hgm_stats - counters of one engine since hgm_create()
 * @size: sizeof(struct hgm_stats), set by the caller
 *
 * Phases of demand faults:
 * @queued:  message read -> the source was asked (or the page was found present)
 * @source:  asked -> answered
 * @install: answered -> mapped; where several wait they are woken together, soon after
 *
 * @protect: of a write to a protected page: what it took until the page was unprotected
 *
 * @faults:          fault messages read
 * @fault_batches:   reads that returned at least one
 * @faults_demand:   led to a request to the source
 * @faults_present:  contents were there already: mapped at once
 * @faults_claimed:  somebody was fetching the page already, or another waits for it, too
 * @faults_unknown:  no region: its memory is being destroyed
 * @fill_requests:   requests that nobody waited for
 * @installed_pages: pages mapped by CONTINUE or COPY; what a collapse maps is not among them
 * @neighbour_pages: of these, mapped together with a page that somebody waited for
 * @zero_pages:      pages that the source said are zero
 * @exist:           installs that found the page mapped (EEXIST); waiters were woken explicitly
 * @again:           installs put off because the address space was changing (EAGAIN)
 * @partial:         installs that the kernel did in several steps
 * @vanished:        installs that found no registered memory (ENOENT, ESRCH)
 * @no_memory:       installs that failed for lack of memory and were tried again
 * @source_errors:   requests that failed
 * @source_short:    requests that were answered in part
 * @source_retries:  requests tried again
 * @poisoned_pages:  pages given up
 * @collapsed_blocks: blocks made huge, verified where the kernel lets us look
 * @collapse_tries:  MADV_COLLAPSE calls
 * @collapse_retries: of these, failed and tried again later
 * @collapse_unproved: returned 0, but the block was found not to be huge
 * @sleeps:          how often a fault thread went to sleep
 * @wp_faults:       writes to protected pages that were let through
 * @wp_put_off:      tries at them that had to wait: no room for the old contents, or the address
 *                   space was changing
 */
struct hgm_stats {
	size_t size;
	struct hgm_hist queued;
	struct hgm_hist source;
	struct hgm_hist install;
	struct hgm_hist protect;
	uint64_t faults;
	uint64_t fault_batches;
	uint64_t faults_demand;
	uint64_t faults_present;
	uint64_t faults_claimed;
	uint64_t faults_unknown;
	uint64_t fill_requests;
	uint64_t installed_pages;
	uint64_t neighbour_pages;
	uint64_t zero_pages;
	uint64_t exist;
	uint64_t again;
	uint64_t partial;
	uint64_t vanished;
	uint64_t no_memory;
	uint64_t source_errors;
	uint64_t source_short;
	uint64_t source_retries;
	uint64_t poisoned_pages;
	uint64_t collapsed_blocks;
	uint64_t collapse_tries;
	uint64_t collapse_retries;
	uint64_t collapse_unproved;
	uint64_t sleeps;
	uint64_t wp_faults;
	uint64_t wp_put_off;
};

/**
 * hgm_get_stats - read an engine's counters
 * @h:     the engine
 * @stats: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL a NULL argument or an impossible @size.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_get_stats(const struct hgm *h, struct hgm_stats *stats);

/**
 * hgm_hist_quantile - estimate a quantile of a histogram
 * @hist:     the histogram
 * @permille: 500 for the median, 990 for p99, 1000 for the largest value
 *
 * Within a bucket values are taken to be spread evenly; the result never exceeds @hist->max_ns.
 *
 * Return: nanoseconds, 0 for an empty histogram.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_hist_quantile(const struct hgm_hist *hist, unsigned int permille);

/**
 * hgm_stats_format - counters as text
 * @stats: as hgm_get_stats() filled them in
 * @buf:   where to put the text, with a NUL at its end; may be NULL if @size is 0
 * @size:  bytes that @buf has
 *
 * One line each: a counter's name and value ("faults 1234"), then the phases ("source_ns count 100
 * mean 5 p50 4 p90 8 p99 9 max 12"). Lines may be added by later releases, at the end of either.
 *
 * Return: the length of the whole text without its NUL, as snprintf(3): it was cut short if that is
 * not less than @size. -EINVAL @stats is NULL or its @size is impossible, @buf is NULL and @size is
 * not 0.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_stats_format(const struct hgm_stats *stats, char *buf, size_t size);

HGM_END_DECLS

#endif /* HGM_STATS_H */
