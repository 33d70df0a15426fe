/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread's error text.
 */
#ifndef HGM_LIB_ERROR_H
#define HGM_LIB_ERROR_H

/*
 * Write this thread's error text and return @rc, so that a failing function ends in one line:
 *	return hgm_fail(-EINVAL, "hgm_x: length %llu is ...", len);
 */
int hgm_fail(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hints for texts about a resource that has run out. */
#define HGM_FD_HINT \
	"raise RLIMIT_NOFILE: an engine needs 6, 2 for each fault thread, 1 for each region"
#define HGM_AREAS_HINT                                                                          \
	"out of memory, or the process has reached the limit vm.max_map_count; see libhgm(7), " \
	"LIMITS"
#define HGM_THREAD_HINT "raise RLIMIT_NPROC, the pids cgroup's limit, or RLIMIT_AS"

/* The name of an errno ("ENOMEM"), for texts. @rc may be negative. */
const char *hgm_errno_name(int rc);

#endif
