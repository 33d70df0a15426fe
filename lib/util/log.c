/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lines for the caller's log. Nothing is formatted unless the caller has a log function.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "log.h"

#define SOME_NS UINT64_C(1000000000)

/* States of a kept line. A thread that changes NONE or KEPT has the line to itself. */
enum {
	NONE,
	BUSY,
	KEPT,
};

static bool wanted(const struct hgm_log *log, enum hgm_log_level level)
{
	return log->write && (!log->level || level <= log->level);
}

void hgm_log(const struct hgm_log *log, enum hgm_log_level level, const char *format, ...)
{
	char text[HGM_LOG_TEXT_MAX];
	va_list ap;

	if (!wanted(log, level))
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	log->write(log->user, level, text);
}

/* May another line of this kind be reported? If so, set *unsaid to how many were not before. */
static bool is_due(struct hgm_log *log, enum hgm_log_kind kind, uint64_t *unsaid)
{
	uint64_t due = atomic_load_explicit(&log->due_ns[kind], memory_order_relaxed);
	uint64_t now = hgm_now_ns();

	if (now < due ||
	    !atomic_compare_exchange_strong_explicit(&log->due_ns[kind], &due, now + SOME_NS,
						     memory_order_relaxed, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&log->unsaid[kind], 1, memory_order_relaxed);
		return false;
	}
	*unsaid = atomic_exchange_explicit(&log->unsaid[kind], 0, memory_order_relaxed);
	return true;
}

void hgm_log_some(struct hgm_log *log, enum hgm_log_kind kind, enum hgm_log_level level,
		  const char *format, ...)
{
	struct hgm_log_line *line = &log->line[kind];
	int none = NONE;
	uint64_t unsaid;
	size_t length;
	va_list ap;

	if (!wanted(log, level) || !is_due(log, kind, &unsaid))
		return;
	/* The last line has not been passed on yet. */
	if (!atomic_compare_exchange_strong_explicit(&line->state, &none, BUSY,
						     memory_order_acquire, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&log->unsaid[kind], unsaid + 1, memory_order_relaxed);
		return;
	}
	line->level = level;
	va_start(ap, format);
	vsnprintf(line->text, sizeof(line->text), format, ap);
	va_end(ap);
	length = strlen(line->text);
	if (unsaid)
		snprintf(line->text + length, sizeof(line->text) - length,
			 " (%" PRIu64 " more like this since the last one)", unsaid);
	atomic_store_explicit(&line->state, KEPT, memory_order_release);
	atomic_store_explicit(&log->any, true, memory_order_release);
}

void hgm_log_flush_kept(struct hgm_log *log)
{
	struct hgm_log_line copy;

	if (!atomic_exchange_explicit(&log->any, false, memory_order_acq_rel))
		return;
	for (unsigned int kind = 0; kind < HGM_LOG_KINDS; kind++) {
		struct hgm_log_line *line = &log->line[kind];
		int kept = KEPT;

		if (!atomic_compare_exchange_strong_explicit(
			    &line->state, &kept, BUSY, memory_order_acquire, memory_order_relaxed))
			continue;
		copy.level = line->level;
		memcpy(copy.text, line->text, sizeof(copy.text));
		atomic_store_explicit(&line->state, NONE, memory_order_release);
		log->write(log->user, copy.level, copy.text);
	}
}
