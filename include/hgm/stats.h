/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/stats.h - counters of an engine
 *
 * Counters only grow. Each counter is read separately, without stopping anything.
 */
#ifndef HGM_STATS_H
#define HGM_STATS_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;

/*
 * A latency histogram. Bucket 0 counts values below 256 ns. Bucket i counts larger values, below
 * 2^(8 + i) ns. The last bucket counts all other values (from 2^38 ns, 4.6 minutes, on).
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
 * @queued:  from reading the message until the source is asked, or the page is found present
 * @source:  from asking the source until it answers
 * @install: from the answer until the page is mapped; if several threads wait, they are woken
 *           together, soon after that
 *
 * @protect: for a write to a protected page: the time until the page was unprotected
 *
 * @faults:          fault messages read
 * @fault_batches:   reads that returned at least one fault message
 * @faults_demand:   faults that led to a request to the source
 * @faults_present:  faults whose contents were already there, and were mapped at once
 * @faults_claimed:  faults on a page that was already being fetched, or that another thread also
 *                   waited for
 * @faults_unknown:  faults without a region, because the memory is being destroyed
 * @fill_requests:   requests that no thread waited for
 * @installed_pages: pages mapped by CONTINUE or COPY; pages that a collapse maps are not included
 * @neighbour_pages: of these, pages mapped together with a page that a thread waited for
 * @zero_pages:      pages that are zero according to the source
 * @exist:           installs that found the page already mapped (EEXIST); waiters were woken
 *                   explicitly
 * @again:           installs that were postponed because the address space was changing (EAGAIN)
 * @partial:         installs that the kernel did in several steps
 * @vanished:        installs that found no registered memory (ENOENT, ESRCH)
 * @no_memory:       installs that failed for lack of memory and were tried again
 * @source_errors:   requests that failed
 * @source_short:    requests that were answered only in part
 * @source_retries:  requests that were tried again
 * @poisoned_pages:  pages that were given up
 * @collapsed_blocks: blocks that became huge, verified where the kernel allows it
 * @collapse_tries:  blocks that MADV_COLLAPSE was called for
 * @collapse_retries: of these, calls that failed and were tried again later
 * @collapse_unproved: calls that returned 0 although the block was found not to be huge
 * @sleeps:          how often a fault thread went to sleep
 * @wp_faults:       writes to protected pages that were allowed to continue
 * @wp_put_off:      attempts at such writes that were postponed, because there was no room for the
 *                   old contents or because the address space was changing
 * @discarded_pages: pages that were discarded before they arrived
 * @events:          messages that were not faults: the caller dropped, unmapped or moved memory
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
	uint64_t discarded_pages;
	uint64_t events;
};

/**
 * hgm_get_stats - read an engine's counters
 * @h:     the engine
 * @stats: filled in; its @size must be set before the call
 *
 * Errors: -EINVAL an argument is NULL or @size is invalid.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_get_stats(const struct hgm *h, struct hgm_stats *stats);

/**
 * hgm_hist_quantile - estimate a quantile of a histogram
 * @hist:     the histogram
 * @permille: 500 for the median, 990 for p99, 1000 for the largest value
 *
 * The function assumes that the values in a bucket are spread evenly. The result never exceeds
 * @hist->max_ns.
 *
 * Return: nanoseconds, or 0 for an empty histogram.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC uint64_t hgm_hist_quantile(const struct hgm_hist *hist, unsigned int permille);

/**
 * hgm_stats_format - write the counters as text
 * @stats: as hgm_get_stats() filled them in
 * @buf:   where to put the text, with a NUL at the end; may be NULL if @size is 0
 * @size:  number of bytes that @buf has
 *
 * The text has a line for each counter, with its name and value ("faults 1234"), then a line for
 * each phase ("source_ns count 100 mean 5 p50 4 p90 8 p99 9 max 12"). Later releases may add lines
 * at the end of the counters and at the end of the phases.
 *
 * Return: the length of the whole text without its NUL, as snprintf(3) does. If the length is not
 * less than @size, the text was truncated. -EINVAL @stats is NULL or its @size is invalid, or @buf
 * is NULL and @size is not 0. -E2BIG @stats is from a newer libhgm and has a counter that this one
 * does not know.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_stats_format(const struct hgm_stats *stats, char *buf, size_t size);

HGM_END_DECLS

#endif /* HGM_STATS_H */
