/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/log.h - what a VMM's log should say about guest memory
 *
 * An engine prints nothing. If its options name a function (struct hgm_opts, @log), the library
 * calls it to report background events: the type of memory that each region got and why, sources
 * that fail, pages that are given up, blocks that stay split, and snapshots that fail. A call that
 * fails reports this only to its caller, through hgm_errmsg().
 */
#ifndef HGM_LOG_H
#define HGM_LOG_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

/**
 * enum hgm_log_level - severity of an event
 * @HGM_LOG_ERROR:   guest memory is lost or stays missing
 * @HGM_LOG_WARNING: something failed and is tried again, or works worse than it could
 * @HGM_LOG_INFO:    properties of the engine and of its regions; a few lines for each
 */
enum hgm_log_level {
	HGM_LOG_ERROR = 1,
	HGM_LOG_WARNING = 2,
	HGM_LOG_INFO = 3,
};

/**
 * hgm_log_fn - a line for the log
 * @user:  as in the options
 * @level: enum hgm_log_level
 * @text:  a sentence without a newline; valid only during the call
 *
 * Any thread may call the function, including the library's own threads, and several threads may
 * call it at a time. Faults wait during the call, so the function must return soon. It must not
 * call libhgm, and must not touch a region's memory. Of messages that can come by the thousand
 * (failing sources, pages given up, blocks that stay split), the library reports at most one per
 * second of each kind, with the number of those that were left out.
 */
typedef void (*hgm_log_fn)(void *user, enum hgm_log_level level, const char *text);

HGM_END_DECLS

#endif /* HGM_LOG_H */
