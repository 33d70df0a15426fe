/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/log.h - what a VMM's log should know of its guest's memory
 *
 * An engine is silent unless its options name a function (struct hgm_opts, @log). It then hears of
 * what happens behind the calls: what a region became and why, sources that fail, pages that are
 * given up, blocks that stay split, snapshots that fail. A call that fails tells its caller, by
 * hgm_errmsg(), and nobody else.
 */
#ifndef HGM_LOG_H
#define HGM_LOG_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

/**
 * enum hgm_log_level - how bad it is
 * @HGM_LOG_ERROR:   guest memory is lost or stays missing
 * @HGM_LOG_WARNING: something failed and is tried again, or works worse than it could
 * @HGM_LOG_INFO:    what an engine and its regions are; a few lines each
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
 * @text:  a sentence, without a newline; lives as long as the call
 *
 * Called on any thread, several at once, the library's own among them, on which faults wait
 * meanwhile: it must return soon, and must not call libhgm, nor touch a region's memory. What may
 * come by the thousand (failing sources, pages given up, blocks that stay split) comes at most once
 * a second of each kind, with the number of those that were left out.
 */
typedef void (*hgm_log_fn)(void *user, enum hgm_log_level level, const char *text);

HGM_END_DECLS

#endif /* HGM_LOG_H */
