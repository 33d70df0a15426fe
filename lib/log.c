/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lines for the caller's log. Nothing is formatted unless somebody listens.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "log.h"

#define SOME_NS	 UINT64_C(1000000000)
#define TEXT_MAX 1200 /* a region's sentence and what goes with it */

static bool wanted(const struct hgm *h, enum hgm_log_level level)
{
	return h->opts.log && (!h->opts.log_level || level <= h->opts.log_level);
}

void hgm_log(const struct hgm *h, enum hgm_log_level level, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list ap;

	if (!wanted(h, level))
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	h->opts.log(h->opts.log_user, level, text);
}

/* May one more of that kind be told? If so, how many were not before it. */
static bool is_due(struct hgm_log_counts *c, enum hgm_log_kind kind, uint64_t *unsaid)
{
	uint64_t due = atomic_load_explicit(&c->due_ns[kind], memory_order_relaxed);
	uint64_t now = hgm_now_ns();

	if (now < due ||
	    !atomic_compare_exchange_strong_explicit(&c->due_ns[kind], &due, now + SOME_NS,
						     memory_order_relaxed, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&c->unsaid[kind], 1, memory_order_relaxed);
		return false;
	}
	*unsaid = atomic_exchange_explicit(&c->unsaid[kind], 0, memory_order_relaxed);
	return true;
}

void hgm_log_some(struct hgm *h, enum hgm_log_kind kind, enum hgm_log_level level,
		  const char *format, ...)
{
	char text[TEXT_MAX];
	uint64_t unsaid;
	size_t length;
	va_list ap;

	if (!wanted(h, level) || !is_due(&h->log_counts, kind, &unsaid))
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	length = strlen(text);
	if (unsaid)
		snprintf(text + length, sizeof(text) - length,
			 " (%" PRIu64 " more like it since the last)", unsaid);
	h->opts.log(h->opts.log_user, level, text);
}
