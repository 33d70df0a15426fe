/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lines for the caller's log function.
 */
#ifndef HGM_LIB_LOG_H
#define HGM_LIB_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <hgm/log.h>

/* Events that may occur in thousands, and are reported once a second. */
enum hgm_log_kind {
	HGM_LOG_SOURCE_FAILED,
	HGM_LOG_IMPOSSIBLE,
	HGM_LOG_GIVEN_UP,
	HGM_LOG_LEFT_SPLIT,
	HGM_LOG_MOVED,
	HGM_LOG_SHRUNK,
	HGM_LOG_NO_MEMORY,
	HGM_LOG_DROPPED,
	HGM_LOG_KINDS,
};

#define HGM_LOG_TEXT_MAX 1200 /* a region's sentence and the text around it */

/* A line that is kept until a thread gets to a place where it may call the caller's function. */
struct hgm_log_line {
	_Atomic int state;
	enum hgm_log_level level;
	char text[HGM_LOG_TEXT_MAX];
};

/* An engine's log. */
struct hgm_log {
	hgm_log_fn write; /* the caller's; NULL: none */
	void *user;
	unsigned int level; /* report up to this one; 0: all */
	_Atomic uint64_t due_ns[HGM_LOG_KINDS];
	_Atomic uint64_t unsaid[HGM_LOG_KINDS]; /* not reported since the last line */
	_Atomic bool any;
	struct hgm_log_line line[HGM_LOG_KINDS];
};

/* Write a line to the caller's log, if there is one and it reports this level. */
void hgm_log(const struct hgm_log *log, enum hgm_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * The same, at most once a second for each kind. May be called anywhere: the line is kept until a
 * thread calls hgm_log_flush(), because the caller's function may block, and must not do so inside
 * a read-side section.
 */
void hgm_log_some(struct hgm_log *log, enum hgm_log_kind kind, enum hgm_log_level level,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

/*
 * Pass kept lines to the caller's function. Must be called outside of all read-side sections, SRCU
 * sections and locks.
 */
void hgm_log_flush_kept(struct hgm_log *log);

static inline void hgm_log_flush(struct hgm_log *log)
{
	if (atomic_load_explicit(&log->any, memory_order_relaxed))
		hgm_log_flush_kept(log);
}

#endif
