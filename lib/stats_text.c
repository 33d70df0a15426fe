/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters as text, for logs and monitors: one per line, so that grep and awk can read them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "error.h"
#include "opts.h"
#include "stats.h"

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
