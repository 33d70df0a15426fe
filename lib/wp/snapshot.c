/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a live snapshot.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "install/suspects.h"
#include "kernel/sys.h"
#include "pager/events.h"
#include "region/hgm.h"
#include "region/memory.h"
#include "snapshot.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"

#define DEFAULT_POOL_BYTES (UINT64_C(64) << 20)
#define POOL_MAX_BYTES	   (UINT64_C(1) << 42)

/*
 * Count pages that were dropped by other means than hgm_region_discard() before they were copied.
 * Pages that are not zero were copied before, or their contents are in a file that was not changed.
 */
static void count_lost(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		       uint64_t pages, const char *buf)
{
	uint64_t lost = 0;

	/* Memory is dropped once the event is read, just before the event is noted. */
	if (pthread_equal(pthread_self(), s->thread))
		hgm_reads_wait(&s->h->reads[hgm_region_stripe(part->r, page)]);
	for (uint64_t i = 0; i < pages; i++)
		if (atomic_load_explicit(&part->dropped[(page + i) / 64], memory_order_acquire) >>
			    (page + i) % 64 &
		    1)
			lost += hgm_sink_is_zero(buf + (i << HGM_PAGE_SHIFT));
	if (!lost)
		return;
	atomic_fetch_add_explicit(&s->unreadable_pages, lost, memory_order_relaxed);
	hgm_log_some(&s->h->log, HGM_LOG_DROPPED, HGM_LOG_WARNING,
		     "a snapshot has zeroes for %llu KiB at %p: they were dropped (MADV_DONTNEED, "
		     "MADV_REMOVE) before it had them; hgm_region_discard() waits for that",
		     (unsigned long long)lost * HGM_PAGE_BYTES >> 10, hgm_region_at(part->r, page));
}

/* On the thread that has read the event. Pages that are being copied now may be lost, too. */
static void note_dropped(struct hgm_guard *g, struct hgm_region *r, uint64_t page, uint64_t pages)
{
	struct hgm_part *part = hgm_guard_user(r);

	(void)g;
	for (uint64_t w = page / 64; w * 64 < page + pages; w++)
		atomic_fetch_or_explicit(&part->dropped[w],
					 hgm_bits_of_range(page, pages, w) & hgm_guard_word(r, w),
					 memory_order_release);
}

/* Copy pages, whose slots are consecutive, into the pool. They are no longer guarded then. */
static void save_run(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		     uint32_t slot, uint64_t pages)
{
	struct hgm_region *r = part->r;

	if (!pages)
		return;
	hgm_snapshot_read(s, part, page, pages, hgm_pool_page(&s->pool, slot));
	for (uint32_t i = 0; i < pages; i++) {
		s->pool.slot[slot + i].part = part->number;
		s->pool.slot[slot + i].page = page + i;
		hgm_pool_ready(&s->pool, slot + i);
	}
	hgm_guard_allow(r, page, pages);
	atomic_fetch_add_explicit(&s->copied_pages, pages, memory_order_relaxed);
}

/* A write to guarded pages: copy their old contents into the pool. */
static int save_word(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, uint64_t want)
{
	struct hgm_region *r = part->r;
	uint64_t mine, first = 0, run = 0;
	uint32_t from = 0;

	want &= hgm_guard_word(r, word);
	if (!want)
		return 0;
	mine = want & ~atomic_fetch_or_explicit(&part->saving[word], want, memory_order_acq_rel);
	for (uint64_t bits = mine; bits; bits &= bits - 1) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
		int64_t slot = hgm_pool_get(&s->pool);

		if (!run || page != first + run || slot != (int64_t)(from + run)) {
			save_run(s, part, first, from, run);
			first = page;
			from = (uint32_t)slot;
			run = 0;
		}
		if (slot < 0) { /* the sink must empty the pool first */
			atomic_fetch_add_explicit(&s->pool_full, 1, memory_order_relaxed);
			atomic_fetch_and_explicit(&part->saving[word], ~bits, memory_order_acq_rel);
			return -EAGAIN;
		}
		run++;
	}
	save_run(s, part, first, from, run);
	return want == mine ? 0 : -EAGAIN; /* another thread is copying the rest */
}

static int save_before_write(struct hgm_guard *g, struct hgm_region *r, uint64_t page,
			     uint64_t pages)
{
	struct hgm_part *part = hgm_guard_user(r);
	int rc = 0;

	(void)g;
	if (hgm_snapshot_failed(part->s)) { /* the sink may be blocking its thread */
		hgm_guard_allow(r, page, pages);
		return 0;
	}
	for (uint64_t w = page / 64; w * 64 < page + pages && !rc; w++)
		rc = save_word(part->s, part, w, hgm_bits_of_range(page, pages, w));
	return rc;
}

/* A region is being destroyed, and waits for us: give nothing more to the sink. */
static void hurry(struct hgm_guard *g)
{
	struct hgm_snapshot *s =
		(struct hgm_snapshot *)((char *)g - offsetof(struct hgm_snapshot, guard));

	hgm_snapshot_fail(s, -ECANCELED);
	pthread_cond_broadcast(&s->cond);
}

static void note_holes(struct hgm_guard *g, struct hgm_region *r, uint64_t word, uint64_t bits)
{
	struct hgm_part *part = hgm_guard_user(r);

	(void)g;
	atomic_fetch_or_explicit(&part->holes[word], bits, memory_order_release);
}

const struct hgm_guard_ops hgm_snapshot_guard_ops = {
	.write = save_before_write,
	.removed = note_dropped,
	.holes = note_holes,
	.hurry = hurry,
};

void hgm_snapshot_fail(struct hgm_snapshot *s, int error)
{
	int none = 0;

	if (error &&
	    atomic_compare_exchange_strong_explicit(&s->error, &none, error, memory_order_acq_rel,
						    memory_order_relaxed) &&
	    error != -ECANCELED)
		hgm_log(&s->h->log, HGM_LOG_WARNING, "a snapshot failed: %s",
			hgm_errno_name(error));
}

void hgm_snapshot_read(struct hgm_snapshot *s, const struct hgm_part *part, uint64_t page,
		       uint64_t pages, void *buf)
{
	struct hgm_memory_outcome out = hgm_memory_read(part->r, page, pages, buf);

	if (!out.unreadable) {
		count_lost(s, part, page, pages, buf);
		return;
	}
	atomic_fetch_add_explicit(&s->unreadable_pages,
				  (uint64_t)__builtin_popcountll(out.unreadable),
				  memory_order_relaxed);
	atomic_store_explicit(&s->read_error, out.error, memory_order_relaxed);
}

static int check_opts(struct hgm *h, struct hgm_snapshot_opts *o)
{
	struct hgm_file_kind kind;
	int rc = 0;

	if (o->flags & ~(HGM_SNAPSHOT_ORDERED | HGM_SNAPSHOT_SYNC))
		return hgm_fail(-EINVAL, "hgm_snapshot_create: unknown flags 0x%x", o->flags);
	if (o->flags & HGM_SNAPSHOT_SYNC && o->write)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: HGM_SNAPSHOT_SYNC goes with fd; a "
					 "sink function does so itself");
	if (!o->write && o->fd < 0)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: no sink: neither write nor fd");
	if (!o->write)
		rc = hgm_sys->file_kind(o->fd, &kind);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_create: fd %d: %s", o->fd, hgm_errno_name(rc));
	if (!o->write && kind.access == O_RDONLY)
		return hgm_fail(-EBADF, "hgm_snapshot_create: fd %d is not open for writing",
				o->fd);
	if (o->flags & HGM_SNAPSHOT_SYNC && !S_ISREG(kind.mode) && !S_ISBLK(kind.mode))
		return hgm_fail(-EINVAL,
				"hgm_snapshot_create: HGM_SNAPSHOT_SYNC, but fd %d is neither a "
				"regular file nor a block device",
				o->fd);
	if (!o->write && kind.appends)
		return hgm_fail(-EINVAL,
				"hgm_snapshot_create: fd %d was opened with O_APPEND: what is "
				"written by offset would all go to its end",
				o->fd);
	if (!o->write)
		rc = hgm_sink_check_file(h, o->fd, "hgm_snapshot_create");
	if (rc)
		return rc;
	if (o->regions && !o->count)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: an array of regions, but count is "
					 "0; for all that the engine has let regions be NULL");
	if (o->count && !o->regions)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: %llu regions, but no array of them",
				(unsigned long long)o->count);
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		return hgm_fail(
			-EINVAL,
			"hgm_snapshot_create: the engine was not started; call hgm_start()");
	if (o->pool_bytes && o->pool_bytes < HGM_PAGE_BYTES)
		return hgm_fail(-ENOMEM,
				"hgm_snapshot_create: pool_bytes %llu is less than a page, 4096; 0 "
				"asks for the default",
				(unsigned long long)o->pool_bytes);
	if (o->pool_bytes > POOL_MAX_BYTES)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: pool_bytes is above 2^42");
	return 0;
}

static bool wanted(const struct hgm_snapshot_opts *o, const struct hgm_region *r)
{
	for (uint64_t i = 0; i < o->count; i++)
		if (o->regions[i] == r)
			return true;
	return !o->regions;
}

/* Collect the regions, in the order of their places in the snapshot, and keep them alive. */
static int take_parts(struct hgm_snapshot *s)
{
	struct hgm_table *t;

	s->part = calloc(HGM_REGIONS_MAX, sizeof(s->part[0]));
	if (!s->part)
		return hgm_fail(-ENOMEM, "hgm_snapshot_create: out of memory");
	hgm_rcu_read_lock();
	t = atomic_load_explicit(&s->h->table, memory_order_acquire);
	for (unsigned int i = 0; i < t->count; i++) {
		struct hgm_region *r = t->region[i];
		uint32_t at = s->parts;

		if (!wanted(&s->opts, r))
			continue;
		hgm_region_visit(r);
		s->mapped_bytes += (r->mapped + r->wp_bytes - 1) / r->wp_bytes * r->wp_bytes;
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): each part has one */
		for (; at && s->part[at - 1].r->source_offset > r->source_offset; at--)
			s->part[at] = s->part[at - 1];
		s->part[at] = (struct hgm_part){ .s = s, .r = r };
		s->parts++;
	}
	hgm_rcu_read_unlock();
	if (!s->parts && !s->opts.regions)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: the engine has no region");
	if (s->opts.regions && s->parts != s->opts.count)
		return hgm_fail(-EINVAL,
				"hgm_snapshot_create: of the %llu regions %u are this engine's, "
				"once each",
				(unsigned long long)s->opts.count, s->parts);
	return 0;
}

/* All of the pool is committed, so make it no larger than the memory of all regions. */
static void choose_pool(struct hgm_snapshot *s)
{
	uint64_t pool = s->opts.pool_bytes ? s->opts.pool_bytes : DEFAULT_POOL_BYTES;

	pool = pool < s->mapped_bytes ? pool : s->mapped_bytes;
	s->opts.pool_bytes = pool / HGM_PAGE_BYTES * HGM_PAGE_BYTES;
}

/* Check the places of the regions, and whether the pool is large enough. */
static int place_parts(struct hgm_snapshot *s)
{
	bool by_default = !s->opts.pool_bytes;

	choose_pool(s);
	for (uint32_t i = 0; i < s->parts; i++) {
		const struct hgm_region *r = s->part[i].r;

		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): each part has one */
		if (r->source_offset < s->length)
			return hgm_fail(-EINVAL,
					"hgm_snapshot_create: two regions have the same place in "
					"the snapshot (source_offset %llu); take one at a time",
					(unsigned long long)r->source_offset);
		if (r->wp_bytes > s->opts.pool_bytes)
			return hgm_fail(
				-ENOMEM,
				"hgm_snapshot_create: the pool has %llu bytes%s, a write to a "
				"region of this kind needs %llu; make pool_bytes larger",
				(unsigned long long)s->opts.pool_bytes,
				by_default ? " by default" : "", (unsigned long long)r->wp_bytes);
		s->length = r->source_offset + r->length;
		s->total_pages += hgm_region_pages(r);
	}
	return 0;
}

static int guard_part(struct hgm_snapshot *s, uint32_t number)
{
	struct hgm_part *part = &s->part[number];
	uint64_t words = hgm_bits_words(part->r->mapped >> HGM_PAGE_SHIFT);
	int rc;

	part->number = number;
	rc = hgm_guard_check_faults(part->r, "hgm_snapshot_create");
	if (rc)
		return rc;
	rc = part->r->fd < 0 ? hgm_memory_open(s->h) : 0;
	if (rc)
		return hgm_fail(rc,
				"hgm_snapshot_create: anonymous memory is read through "
				"/proc/self/mem: %s",
				hgm_errno_name(rc));
	part->saving = calloc(words, sizeof(part->saving[0]));
	part->armed = calloc(words, sizeof(part->armed[0]));
	part->discarded = calloc(words, sizeof(part->discarded[0]));
	part->holes = calloc(words, sizeof(part->holes[0]));
	part->dropped = calloc(words, sizeof(part->dropped[0]));
	if (!part->saving || !part->armed || !part->discarded || !part->holes || !part->dropped)
		return hgm_fail(-ENOMEM, "hgm_snapshot_create: out of memory for bitmaps");
	rc = hgm_guard_begin(part->r, &s->guard, part);
	if (rc)
		return rc;
	part->guarded = true;
	/* Write to them once, so that the instant does not wait until the kernel allocates them. */
	for (uint64_t w = 0; w < words; w++) {
		part->armed[w] = hgm_map_present_word(part->r->map, w);
		part->discarded[w] = hgm_map_discarded_word(part->r->map, w);
		hgm_guard_clear(part->r, w, UINT64_MAX);
	}
	hgm_guard_hold(part->r, 0, part->r->blocks);
	return hgm_guard_register(part->r, 0, part->r->blocks);
}

void hgm_snapshot_free(struct hgm_snapshot *s)
{
	for (uint32_t i = 0; i < s->parts; i++) {
		free(s->part[i].saving);
		free(s->part[i].armed);
		free(s->part[i].discarded);
		free(s->part[i].holes);
		free(s->part[i].dropped);
	}
	free(s->part);
	hgm_pool_free(&s->pool);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->cond);
	pthread_cond_destroy(&s->ahead_cond);
	free(s);
}

static void give_back(struct hgm_snapshot *s)
{
	for (uint32_t i = 0; i < s->parts; i++) {
		if (s->part[i].guarded)
			hgm_guard_end(s->part[i].r);
		hgm_region_leave(s->part[i].r);
	}
}

static int make_pool(struct hgm_snapshot *s)
{
	bool ordered = s->stream || s->opts.flags & HGM_SNAPSHOT_ORDERED;
	int rc = hgm_pool_make(&s->pool, s->opts.pool_bytes, ordered);

	/* EFAULT: the memory cgroup is full. */
	return rc ? hgm_fail(rc == -EFAULT ? -ENOMEM : rc,
			     "hgm_snapshot_create: no memory for a pool of %llu MiB: %s; make "
			     "pool_bytes smaller",
			     (unsigned long long)s->opts.pool_bytes >> 20, hgm_errno_name(rc))
		  : 0;
}

int hgm_snapshot_create(struct hgm_snapshot **out, struct hgm *h,
			const struct hgm_snapshot_opts *opts)
{
	HGM_UNCANCELLED;
	struct hgm_snapshot_opts o;
	struct hgm_snapshot *s;
	int64_t at;
	int rc;

	if (!out || !h || !opts)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: %s is NULL",
				!out ? "out"
				: !h ? "the engine"
				     : "opts (a sink is required)");
	rc = hgm_opts_in(&o, sizeof(o), HGM_FIRST_SIZE(struct hgm_snapshot_opts, rate_bytes), opts,
			 "hgm_snapshot_create");
	if (!rc)
		rc = check_opts(h, &o);
	if (rc)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return hgm_fail(-ENOMEM, "hgm_snapshot_create: out of memory");
	s->guard = (struct hgm_guard){ .ops = &hgm_snapshot_guard_ops, .name = "a snapshot" };
	s->h = h;
	s->opts = o;
	at = o.write ? 0 : hgm_sys->lseek(o.fd, 0, SEEK_CUR);
	s->stream = at == -ESPIPE;
	pthread_mutex_init(&s->lock, NULL);
	hgm_cond_init(&s->cond);
	hgm_cond_init(&s->ahead_cond);
	if (at < 0 && !s->stream)
		rc = hgm_fail((int)at, "hgm_snapshot_create: fd %d: lseek: %s", o.fd,
			      hgm_errno_name((int)at));
	if (!rc)
		rc = take_parts(s);
	if (!rc)
		rc = place_parts(s);
	if (!rc)
		rc = make_pool(s);
	for (uint32_t i = 0; i < s->parts && !rc; i++)
		rc = guard_part(s, i);
	if (!rc)
		rc = hgm_thread_start(&s->thread, "hgm-snapshot", 0, hgm_snapshot_thread, s);
	if (rc) {
		give_back(s);
		hgm_snapshot_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

/* A snapshot of all regions must also have the regions that were added since its creation. */
static int check_complete(const struct hgm_snapshot *s)
{
	unsigned int regions;

	if (s->opts.regions)
		return 0;
	hgm_rcu_read_lock();
	regions = atomic_load_explicit(&s->h->table, memory_order_acquire)->count;
	hgm_rcu_read_unlock();
	return regions > s->parts
		       ? hgm_fail(-ESTALE,
				  "hgm_snapshot_begin: the engine has %u regions, the snapshot %u: "
				  "some were added since hgm_snapshot_create(); create another one",
				  regions, s->parts)
		       : 0;
}

/* Locked. As long as the snapshot has not failed, its thread waits and keeps the regions alive. */
static int may_begin(struct hgm_snapshot *s)
{
	int error;

	if (s->begun)
		return hgm_fail(-EALREADY, "hgm_snapshot_begin: it was begun before");
	for (uint32_t i = 0; i < s->parts && !atomic_load(&s->error); i++)
		if (atomic_load_explicit(&s->part[i].r->dying, memory_order_acquire))
			hgm_snapshot_fail(s, -ECANCELED);
	error = atomic_load_explicit(&s->error, memory_order_acquire);
	if (error)
		return hgm_fail(error, "hgm_snapshot_begin: it has failed already: %s",
				hgm_errno_name(error));
	error = check_complete(s);
	/* Check again: there may be new regions, which are not in the snapshot. */
	if (!error && !s->opts.write)
		error = hgm_sink_check_file(s->h, s->opts.fd, "hgm_snapshot_begin");
	return error;
}

static int arm_all(struct hgm_snapshot *s)
{
	int rc = 0;

	/* What events announced, and is dropped by now, was dropped before the instant. */
	hgm_events_settle(s->h);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_suspects_check(s->part[i].r, 0, hgm_region_pages(s->part[i].r));
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_guard_hush(s->part[i].r);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_guard_wait(s->part[i].r);
	for (uint32_t i = 0; i < s->parts && !rc; i++)
		rc = hgm_guard_arm(s->part[i].r, s->part[i].armed, s->part[i].discarded);
	return rc;
}

int hgm_snapshot_begin(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;
	uint64_t start = hgm_now_ns();
	int rc;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_begin: the snapshot is NULL");
	pthread_mutex_lock(&s->lock);
	rc = may_begin(s);
	if (!rc) {
		/* The thread does nothing before the state changes. */
		s->begun = true;
		rc = arm_all(s);
		hgm_snapshot_fail(s, rc);
		s->state = HGM_SNAPSHOT_RUNNING;
		atomic_store(&s->begin_ns, hgm_now_ns() - start);
	}
	/* Locked: the sink may destroy the snapshot as soon as its thread continues. */
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static void unlock(void *lock)
{
	pthread_mutex_unlock(lock);
}

/* A cancellation point, like hgm_wait(): the lock is released if the thread is cancelled. */
static bool wait_locked(struct hgm_snapshot *s, uint64_t deadline)
{
	bool late;

	pthread_cleanup_push(unlock, &s->lock);
	late = hgm_cond_wait(&s->cond, &s->lock, deadline);
	pthread_cleanup_pop(0);
	return late;
}

int hgm_snapshot_wait(struct hgm_snapshot *s, int timeout_ms)
{
	uint64_t deadline = UINT64_MAX, left;
	bool late = timeout_ms == 0;
	int rc, why;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_wait: the snapshot is NULL");
	if (timeout_ms >= 0)
		deadline = hgm_now_ns() + (uint64_t)timeout_ms * 1000000;
	if (pthread_equal(pthread_self(), s->thread))
		return hgm_fail(-EDEADLK,
				"hgm_snapshot_wait: called from inside hgm_sink_fn, it would wait "
				"for that to return; do it on another thread");
	pthread_mutex_lock(&s->lock);
	rc = s->state == HGM_SNAPSHOT_PREPARED && !atomic_load(&s->error) ? -EINVAL : 0;
	/* Failed before it began: no sink or source is called any more, so it ends at once. */
	if (!s->begun && !rc) {
		deadline = UINT64_MAX;
		late = false;
	}
	while (!rc && s->state != HGM_SNAPSHOT_ENDED && !late)
		late = wait_locked(s, deadline);
	if (!rc && s->state != HGM_SNAPSHOT_ENDED)
		rc = -ETIMEDOUT;
	pthread_mutex_unlock(&s->lock);
	if (rc == -EINVAL)
		return hgm_fail(rc,
				"hgm_snapshot_wait: it was not begun; call hgm_snapshot_begin()");
	left = atomic_load_explicit(&s->unreadable_pages, memory_order_relaxed);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_wait: %llu of %llu bytes after %d ms",
				(unsigned long long)atomic_load(&s->done_pages) << HGM_PAGE_SHIFT,
				(unsigned long long)s->total_pages << HGM_PAGE_SHIFT, timeout_ms);
	why = atomic_load_explicit(&s->read_error, memory_order_relaxed);
	rc = atomic_load_explicit(&s->error, memory_order_acquire);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_wait: it has failed: %s", hgm_errno_name(rc));
	if (left)
		return hgm_fail(-ENODATA,
				"hgm_snapshot_wait: %llu bytes could not be read, they are zeroes "
				"in the snapshot; last error %s",
				(unsigned long long)left << HGM_PAGE_SHIFT,
				why ? hgm_errno_name(why) : "of the source");
	return 0;
}

int hgm_snapshot_cancel(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_cancel: the snapshot is NULL");
	pthread_mutex_lock(&s->lock);
	if (s->state != HGM_SNAPSHOT_ENDED)
		hgm_snapshot_fail(s, -ECANCELED);
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int hgm_snapshot_get_progress(struct hgm_snapshot *s, struct hgm_snapshot_progress *out)
{
	struct hgm_snapshot_progress p = { .size = sizeof(p) };

	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_get_progress: the snapshot is NULL");
	p.total_bytes = s->total_pages << HGM_PAGE_SHIFT;
	p.done_bytes = atomic_load(&s->done_pages) << HGM_PAGE_SHIFT;
	p.zero_bytes = atomic_load(&s->zero_pages) << HGM_PAGE_SHIFT;
	p.copied_bytes = atomic_load(&s->copied_pages) << HGM_PAGE_SHIFT;
	p.source_bytes = atomic_load(&s->source_pages) << HGM_PAGE_SHIFT;
	p.unreadable_bytes = atomic_load(&s->unreadable_pages) << HGM_PAGE_SHIFT;
	p.pool_used_bytes = (uint64_t)atomic_load(&s->pool.used) << HGM_PAGE_SHIFT;
	p.pool_full = atomic_load(&s->pool_full);
	p.begin_ns = atomic_load(&s->begin_ns);
	pthread_mutex_lock(&s->lock);
	p.done = s->state == HGM_SNAPSHOT_ENDED;
	pthread_mutex_unlock(&s->lock);
	p.error = atomic_load(&s->error);
	return hgm_opts_out(out, &p, sizeof(p), HGM_FIRST_SIZE(struct hgm_snapshot_progress, error),
			    "hgm_snapshot_get_progress");
}

void hgm_snapshot_destroy(struct hgm_snapshot *s)
{
	HGM_UNCANCELLED;

	if (!s)
		return;
	hgm_snapshot_cancel(s);
	if (pthread_equal(pthread_self(), s->thread)) { /* inside the sink: it frees itself */
		s->unowned = true;
		return;
	}
	pthread_join(s->thread, NULL);
	hgm_snapshot_free(s);
}
