/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's file that is truncated.
 *
 * A thread that touches a mapping beyond the end of its file gets SIGBUS. A worker that writes
 * contents there would end the process. So unless the file is sealed (F_SEAL_SHRINK), contents are
 * written to the alias only by system calls, which fail instead. Pages beyond the end are given up:
 * touching them raises SIGBUS without any poison of ours.
 */
#include <errno.h>
#include <string.h>

#include "hgm.h"
#include "kernel/sys.h"

bool hgm_shrunk(const struct hgm_region *r, uint64_t page)
{
	struct hgm_file_kind kind;

	return r->may_shrink && !hgm_sys->file_kind(r->fd, &kind) &&
	       hgm_region_file_at(r, page) >= kind.size;
}

int hgm_shrunk_outcome(const struct hgm_region *r, uint64_t page, int rc)
{
	return rc == -ENOMEM && hgm_shrunk(r, page) ? -EFAULT : rc;
}

int64_t hgm_shrunk_copy(const struct hgm_region *r, void *to, const void *from, uint64_t bytes)
{
	int64_t n;

	if (!r->may_shrink) {
		memcpy(to, from, bytes);
		return (int64_t)bytes;
	}
	do
		n = hgm_sys->copy(to, from, bytes);
	while (n == -EINTR);
	if (n != -EPERM && n != -ENOSYS)
		return n < 0 ? n : n & ~(int64_t)(HGM_PAGE_BYTES - 1);
	memcpy(to, from, bytes); /* a sandbox denies the call: treat the file as sealed */
	return (int64_t)bytes;
}

int64_t hgm_shrunk_write(const struct hgm_region *r, uint64_t page, uint64_t pages, const void *buf)
{
	char *to = r->alias + (page << HGM_PAGE_SHIFT);
	int64_t n, done = 0;

	if (buf) {
		n = hgm_shrunk_copy(r, to, buf, pages << HGM_PAGE_SHIFT);
		return n < 0 ? n : n >> HGM_PAGE_SHIFT;
	}
	do {
		n = hgm_shrunk_copy(r, to + (done << HGM_PAGE_SHIFT), r->zeroes, HGM_PAGE_BYTES);
		done += n > 0;
	} while (n > 0 && (uint64_t)done < pages);
	return done ? done : n;
}
