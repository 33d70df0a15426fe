/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The counters as the caller sees them: as a struct, as quantiles, and as text for logs and
 * monitors, one per line, so that grep and awk can read them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "region/hgm.h"
#include "util/error.h"
#include "util/opts.h"
#include "util/stats.h"

#define FIRST_COUNTER offsetof(struct hgm_stats, faults)

_Static_assert(sizeof(struct hgm_stats) == FIRST_COUNTER + HGM_STAT_COUNT * sizeof(uint64_t),
	       "enum hgm_stat follows struct hgm_stats");

int hgm_get_stats(const struct hgm *h, struct hgm_stats *stats)
{
	struct hgm_stats own = { .size = sizeof(own) };

	if (!h)
		return hgm_fail(-EINVAL, "hgm_get_stats: the engine is NULL");
	hgm_stat_read_phase(&h->stats, HGM_PHASE_QUEUED, &own.queued);
	hgm_stat_read_phase(&h->stats, HGM_PHASE_SOURCE, &own.source);
	hgm_stat_read_phase(&h->stats, HGM_PHASE_INSTALL, &own.install);
	hgm_stat_read_phase(&h->stats, HGM_PHASE_PROTECT, &own.protect);
	for (int i = 0; i < HGM_STAT_COUNT; i++) {
		uint64_t sum = hgm_stat_read(&h->stats, (enum hgm_stat)i);

		memcpy((char *)&own + FIRST_COUNTER + (size_t)i * sizeof(sum), &sum, sizeof(sum));
	}
	return hgm_opts_out(stats, &own, sizeof(own), HGM_STATS_FIRST_SIZE, "hgm_get_stats");
}

uint64_t hgm_hist_quantile(const struct hgm_hist *hist, unsigned int permille)
{
	uint64_t below = 0;
	uint64_t rank;

	if (!hist || !hist->count)
		return 0;
	if (permille >= 1000)
		return hist->max_ns;
	rank = hist->count * permille / 1000;
	for (unsigned int b = 0; b < HGM_HIST_BUCKETS; b++) {
		uint64_t n = hist->bucket[b];

		if (n && rank < below + n) {
			uint64_t low = b ? UINT64_C(1) << (b + 7) : 0;
			uint64_t high = UINT64_C(1) << (b + 8);
			double part = ((double)(rank - below) + 0.5) / (double)n;
			uint64_t ns = low + (uint64_t)((double)(high - low) * part);

			return ns < hist->max_ns ? ns : hist->max_ns;
		}
		below += n;
	}
	return hist->max_ns;
}

static const struct {
	const char *name;
	size_t place;
} counters[] = {
#define COUNTER(name)                                   \
	{                                               \
#name, offsetof(struct hgm_stats, name) \
	}
	COUNTER(faults),
	COUNTER(fault_batches),
	COUNTER(faults_demand),
	COUNTER(faults_present),
	COUNTER(faults_claimed),
	COUNTER(faults_unknown),
	COUNTER(fill_requests),
	COUNTER(installed_pages),
	COUNTER(neighbour_pages),
	COUNTER(zero_pages),
	COUNTER(exist),
	COUNTER(again),
	COUNTER(partial),
	COUNTER(vanished),
	COUNTER(no_memory),
	COUNTER(source_errors),
	COUNTER(source_short),
	COUNTER(source_retries),
	COUNTER(poisoned_pages),
	COUNTER(collapsed_blocks),
	COUNTER(collapse_tries),
	COUNTER(collapse_retries),
	COUNTER(collapse_unproved),
	COUNTER(sleeps),
	COUNTER(wp_faults),
	COUNTER(wp_put_off),
	COUNTER(discarded_pages),
	COUNTER(events),
#undef COUNTER
};

_Static_assert(sizeof(counters) / sizeof(counters[0]) == HGM_STAT_COUNT, "each counter has a name");

struct text {
	char *buf;
	size_t size;
	size_t length; /* of the whole text, whether it fits or not */
};

static void say(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *t, const char *format, ...)
{
	size_t used = t->length < t->size ? t->length : t->size;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(t->size > used ? t->buf + used : NULL, t->size - used, format, ap);
	va_end(ap);
	t->length += n > 0 ? (size_t)n : 0;
}

static void say_hist(struct text *t, const char *name, const struct hgm_hist *hist)
{
	say(t,
	    "%s_ns count %" PRIu64 " mean %" PRIu64 " p50 %" PRIu64 " p90 %" PRIu64 " p99 %" PRIu64
	    " max %" PRIu64 "\n",
	    name, hist->count, hist->count ? hist->sum_ns / hist->count : 0,
	    hgm_hist_quantile(hist, 500), hgm_hist_quantile(hist, 900),
	    hgm_hist_quantile(hist, 990), hist->max_ns);
}

int hgm_stats_format(const struct hgm_stats *stats, char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };
	struct hgm_stats s;
	int rc;

	if (!stats || (!buf && size))
		return hgm_fail(-EINVAL, "hgm_stats_format: %s NULL",
				stats ? "the buffer is" : "the counters are");
	rc = hgm_opts_in(&s, sizeof(s), HGM_STATS_FIRST_SIZE, stats, "hgm_stats_format");
	if (rc)
		return rc;
	for (size_t i = 0; i < HGM_STAT_COUNT; i++)
		say(&t, "%s %" PRIu64 "\n", counters[i].name,
		    *(const uint64_t *)((const char *)&s + counters[i].place));
	say_hist(&t, "queued", &s.queued);
	say_hist(&t, "source", &s.source);
	say_hist(&t, "install", &s.install);
	say_hist(&t, "protect", &s.protect);
	return (int)t.length;
}
