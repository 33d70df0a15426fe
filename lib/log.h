/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_LOG_H
#define HGM_LIB_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#include <hgm/log.h>

struct hgm;

/* What may happen by the thousand, and is told of once a second. */
enum hgm_log_kind {
	HGM_LOG_SOURCE_FAILED,
	HGM_LOG_GIVEN_UP,
	HGM_LOG_LEFT_SPLIT,
	HGM_LOG_KINDS,
};

struct hgm_log_counts {
	_Atomic uint64_t due_ns[HGM_LOG_KINDS];
	_Atomic uint64_t unsaid[HGM_LOG_KINDS]; /* since the last one */
};

/* A line for the engine's log, if it has one that wants to know. */
void hgm_log(const struct hgm *h, enum hgm_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same, at most once a second of each kind. */
void hgm_log_some(struct hgm *h, enum hgm_log_kind kind, enum hgm_log_level level,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
