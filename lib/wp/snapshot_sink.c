/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a snapshot's bytes go, and how fast.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/sys.h"
#include "region/hgm.h"
#include "snapshot.h"
#include "source/source.h"
#include "util/clock.h"
#include "util/error.h"

#define POLL_NS	      INT64_C(20000000)	 /* after this time a cancelled snapshot is noticed */
#define RATE_SLACK_NS UINT64_C(10000000) /* so much of lost time is made up for */

/* A descriptor with O_NONBLOCK accepts nothing at the moment. */
static void wait_for_room(const struct hgm_snapshot *s)
{
	struct pollfd pfd = { .fd = s->opts.fd, .events = POLLOUT };

	hgm_sys->poll(&pfd, 1, POLL_NS);
}

static int64_t write_fd(struct hgm_snapshot *s, const char *buf, uint64_t length, uint64_t offset)
{
	for (;;) {
		ssize_t n = s->stream ? hgm_sys->write(s->opts.fd, buf, length)
				      : hgm_sys->pwrite(s->opts.fd, buf, length, offset);

		if (n == -EAGAIN && hgm_snapshot_failed(s))
			return -ECANCELED;
		if (n == -EAGAIN)
			wait_for_room(s);
		else if (n != -EINTR)
			return n;
	}
}

/* After a pause, whether of the sink or not, the snapshot does not go faster to make up for it. */
static void count_rate(struct hgm_snapshot *s, uint64_t bytes, uint64_t start_ns)
{
	if (!s->opts.rate_bytes)
		return;
	if (s->rate_due_ns + RATE_SLACK_NS < start_ns)
		s->rate_due_ns = start_ns - RATE_SLACK_NS;
	s->rate_due_ns += (uint64_t)((double)bytes * 1e9 / (double)s->opts.rate_bytes);
}

static int write_all(struct hgm_snapshot *s, const char *buf, uint64_t length, uint64_t offset)
{
	while (length) {
		uint64_t start_ns = s->opts.rate_bytes ? hgm_now_ns() : 0;
		int64_t n = s->opts.write ? s->opts.write(s->opts.user, buf, length, offset)
					  : write_fd(s, buf, length, offset);

		if (n <= 0 || (uint64_t)n > length)
			return n < 0 && n > -4096 ? (int)n : -EIO;
		buf += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
		count_rate(s, (uint64_t)n, start_ns);
	}
	return 0;
}

/* Write the gap between regions in a stream. */
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

bool hgm_sink_is_zero(const void *page)
{
	/* A page is zero if its first bytes are and each byte equals the one 16 before it. */
	static const char zeroes[16];

	return !memcmp(page, zeroes, sizeof(zeroes)) &&
	       !memcmp(page, (const char *)page + sizeof(zeroes), HGM_PAGE_BYTES - sizeof(zeroes));
}

int hgm_sink_pages(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		   uint64_t pages, const char *buf)
{
	uint64_t offset = hgm_region_source_at(part->r, page);
	int rc = 0;

	if (s->stream) {
		rc = write_gap(s, offset);
		if (!rc)
			rc = write_all(s, buf, pages << HGM_PAGE_SHIFT, offset);
		s->stream_at = offset + (pages << HGM_PAGE_SHIFT);
	}
	for (uint64_t at = 0, run; !rc && at < pages; at += run) {
		bool zero = hgm_sink_is_zero(buf + (at << HGM_PAGE_SHIFT));

		for (run = 1; at + run < pages; run++)
			if (hgm_sink_is_zero(buf + ((at + run) << HGM_PAGE_SHIFT)) != zero)
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

int hgm_sink_check_file(struct hgm *h, int fd, const char *function)
{
	bool memory = false, source = false;
	struct hgm_file_kind kind;
	struct hgm_file_id file;
	struct hgm_table *t;
	int rc = hgm_sys->file_kind(fd, &kind);

	if (rc == -EBADF) /* it was closed since, so writes will fail */
		return 0;
	if (rc)
		return hgm_fail(rc, "%s: fd %d: %s", function, fd, hgm_errno_name(rc));
	file = hgm_file_id(&kind);
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		memory |= hgm_file_same(&file, &t->region[i]->file);
		source |= hgm_file_same(&file, &t->region[i]->source->file);
	}
	hgm_rcu_read_unlock();
	if (memory || source)
		return hgm_fail(-EINVAL,
				"%s: fd %d refers to the file that %s a region of this engine%s; "
				"write to another file",
				function, fd, memory ? "is the memory of" : "is the source of",
				memory ? "" : ", which may still be read");
	return 0;
}

/* Old data in a file or on a disk must not be read back in place of zeroes. */
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
	int rc = 0;

	if (s->opts.write)
		return 0;
	if (s->stream)
		return write_gap(s, s->length);
	if (s->is_file)
		rc = hgm_sys->ftruncate(s->opts.fd, s->length);
	if (!rc && s->opts.flags & HGM_SNAPSHOT_SYNC)
		rc = hgm_sys->fsync(s->opts.fd);
	return rc;
}
