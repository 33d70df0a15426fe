/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a snapshot's bytes go, and how fast.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "engine.h"
#include "snapshot.h"
#include "source.h"
#include "sys.h"

static int64_t write_fd(struct hgm_snapshot *s, const char *buf, uint64_t length, uint64_t offset)
{
	ssize_t n;

	do
		n = s->stream ? hgm_sys->write(s->opts.fd, buf, length)
			      : hgm_sys->pwrite(s->opts.fd, buf, length, offset);
	while (n == -EINTR);
	return n;
}

static int write_all(struct hgm_snapshot *s, const char *buf, uint64_t length, uint64_t offset)
{
	while (length) {
		int64_t n = s->opts.write ? s->opts.write(s->opts.user, buf, length, offset)
					  : write_fd(s, buf, length, offset);

		if (n <= 0 || (uint64_t)n > length)
			return n < 0 && n > -4096 ? (int)n : -EIO;
		buf += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
		s->rate_bytes += (uint64_t)n;
	}
	return 0;
}

/* What lies between regions in a stream. */
static int write_gap(struct hgm_snapshot *s, uint64_t upto)
{
	static const char zeroes[HGM_PAGE_BYTES];
	int rc = 0;

	while (!rc && s->stream_at < upto) {
		uint64_t n = upto - s->stream_at;

		n = n < sizeof(zeroes) ? n : sizeof(zeroes);
		rc = write_all(s, zeroes, n, s->stream_at);
		s->stream_at += n;
	}
	return rc;
}

static bool is_zero(const char *page)
{
	/* A page is zero if its first bytes are and each byte equals the one 16 before it. */
	static const char zeroes[16];

	return !memcmp(page, zeroes, sizeof(zeroes)) &&
	       !memcmp(page, page + sizeof(zeroes), HGM_PAGE_BYTES - sizeof(zeroes));
}

int hgm_sink_pages(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		   uint64_t pages, const char *buf)
{
	uint64_t offset = part->r->source_offset + (page << HGM_PAGE_SHIFT);
	int rc = 0;

	if (s->stream) {
		rc = write_gap(s, offset);
		if (!rc)
			rc = write_all(s, buf, pages << HGM_PAGE_SHIFT, offset);
		s->stream_at = offset + (pages << HGM_PAGE_SHIFT);
	}
	for (uint64_t at = 0, run; !rc && at < pages; at += run) {
		bool zero = is_zero(buf + (at << HGM_PAGE_SHIFT));

		for (run = 1; at + run < pages; run++)
			if (is_zero(buf + ((at + run) << HGM_PAGE_SHIFT)) != zero)
				break;
		if (zero)
			atomic_fetch_add_explicit(&s->zero_pages, run, memory_order_relaxed);
		if (!s->stream && (!zero || offset + (at << HGM_PAGE_SHIFT) < s->stale_bytes))
			rc = write_all(s, buf + (at << HGM_PAGE_SHIFT), run << HGM_PAGE_SHIFT,
				       offset + (at << HGM_PAGE_SHIFT));
	}
	if (!rc)
		atomic_fetch_add_explicit(&s->done_pages, pages, memory_order_relaxed);
	return rc;
}

/* What is in a file, or on a disk, from before must not be seen instead of zeroes. */
int hgm_sink_begin(struct hgm_snapshot *s)
{
	struct hgm_file_kind kind;
	int64_t end;
	int rc;

	if (s->opts.write || s->stream)
		return 0;
	rc = hgm_sys->file_kind(s->opts.fd, &kind);
	if (rc)
		return rc;
	s->is_file = S_ISREG(kind.mode);
	s->stale_bytes = kind.size;
	if (!S_ISBLK(kind.mode))
		return 0;
	end = hgm_sys->lseek(s->opts.fd, 0, SEEK_END);
	s->stale_bytes = end > 0 ? (uint64_t)end : 0;
	return end < 0 ? (int)end : 0;
}

int hgm_sink_finish(struct hgm_snapshot *s)
{
	if (s->opts.write)
		return 0;
	if (s->stream)
		return write_gap(s, s->length);
	return s->is_file ? hgm_sys->ftruncate(s->opts.fd, s->length) : 0;
}
