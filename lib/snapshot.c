/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live snapshot's life.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bits.h"
#include "clock.h"
#include "engine.h"
#include "error.h"
#include "opts.h"
#include "snapshot.h"
#include "sys.h"

#define DEFAULT_POOL_BYTES (UINT64_C(64) << 20)
#define POOL_MAX_BYTES	   (UINT64_C(1) << 42)

/* A write to guarded pages: their old contents go into the pool. */
static int save_word(struct hgm_snapshot *s, struct hgm_part *part, uint64_t word, uint64_t want)
{
	struct hgm_region *r = part->r;
	uint64_t mine;

	want &= atomic_load_explicit(&r->guarded[word], memory_order_acquire);
	if (!want)
		return 0;
	mine = want & ~atomic_fetch_or_explicit(&part->saving[word], want, memory_order_acq_rel);
	for (uint64_t bits = mine; bits; bits &= bits - 1) {
		uint64_t bit = bits & -bits, page = word * 64 + (uint64_t)__builtin_ctzll(bits);
		int64_t slot = hgm_pool_get(&s->pool);

		if (slot < 0) { /* the sink must empty it first */
			atomic_fetch_add_explicit(&s->pool_full, 1, memory_order_relaxed);
			atomic_fetch_and_explicit(&part->saving[word], ~bits, memory_order_acq_rel);
			return -EAGAIN;
		}
		hgm_guard_read(r, page, hgm_pool_page(&s->pool, (uint32_t)slot));
		s->pool.slot[slot].part = part->number;
		s->pool.slot[slot].page = page;
		hgm_pool_ready(&s->pool, (uint32_t)slot);
		atomic_fetch_and_explicit(&r->guarded[word], ~bit, memory_order_acq_rel);
		atomic_fetch_add_explicit(&s->copied_pages, 1, memory_order_relaxed);
	}
	return want == mine ? 0 : -EAGAIN; /* somebody else is copying the rest */
}

static int save_before_write(struct hgm_guard *g, struct hgm_region *r, uint64_t page,
			     uint64_t pages)
{
	struct hgm_part *part = r->guard_user;
	int rc = 0;

	(void)g;
	for (uint64_t w = page / 64; w * 64 < page + pages && !rc; w++)
		rc = save_word(part->s, part, w, hgm_bits_of_range(page, pages, w));
	return rc;
}

/* A region is being destroyed, and waits for us: nothing more goes to the sink. */
static void hurry(struct hgm_guard *g)
{
	struct hgm_snapshot *s =
		(struct hgm_snapshot *)((char *)g - offsetof(struct hgm_snapshot, guard));

	hgm_snapshot_fail(s, -ECANCELED);
	pthread_cond_broadcast(&s->cond);
}

const struct hgm_guard_ops hgm_snapshot_guard_ops = {
	.write = save_before_write,
	.hurry = hurry,
};

void hgm_snapshot_fail(struct hgm_snapshot *s, int error)
{
	int none = 0;

	if (error &&
	    atomic_compare_exchange_strong_explicit(&s->error, &none, error, memory_order_acq_rel,
						    memory_order_relaxed) &&
	    error != -ECANCELED)
		hgm_log(s->h, HGM_LOG_WARNING, "a snapshot failed: %s", hgm_errno_name(error));
}

static int check_opts(struct hgm *h, struct hgm_snapshot_opts *o)
{
	struct hgm_file_kind kind;

	if (o->flags & ~HGM_SNAPSHOT_ORDERED)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: unknown flags 0x%x", o->flags);
	if (!o->write && o->fd < 0)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: no sink: neither write nor fd");
	if (!o->write && hgm_sys->file_kind(o->fd, &kind))
		return hgm_fail(-EBADF, "hgm_snapshot_create: fd %d is no open file", o->fd);
	if (!o->write && kind.access == O_RDONLY)
		return hgm_fail(-EBADF, "hgm_snapshot_create: fd %d is not open for writing",
				o->fd);
	if (!o->write && kind.appends)
		return hgm_fail(-EINVAL,
				"hgm_snapshot_create: fd %d was opened with O_APPEND: what is "
				"written by offset would all go to its end",
				o->fd);
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

/* The regions, held, in the order of their places in the snapshot. */
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
		s->mapped_bytes += r->mapped;
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

/* By default no more than all of the memory takes. */
static void choose_pool(struct hgm_snapshot *s)
{
	uint64_t pool = s->opts.pool_bytes;

	if (!pool)
		pool = s->mapped_bytes < DEFAULT_POOL_BYTES ? s->mapped_bytes : DEFAULT_POOL_BYTES;
	s->opts.pool_bytes = pool / HGM_PAGE_BYTES * HGM_PAGE_BYTES;
}

/* Their places, and whether the pool is large enough. */
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
	part->saving = calloc(words, sizeof(part->saving[0]));
	part->armed = calloc(words, sizeof(part->armed[0]));
	if (!part->saving || !part->armed)
		return hgm_fail(-ENOMEM, "hgm_snapshot_create: out of memory for bitmaps");
	rc = hgm_guard_begin(part->r, &s->guard, part);
	if (rc)
		return rc;
	part->guarded = true;
	/* Written to once: the instant shall not wait until the kernel has memory for them. */
	for (uint64_t w = 0; w < words; w++) {
		part->armed[w] = hgm_map_present_word(part->r->map, w);
		atomic_store_explicit(&part->r->guarded[w], 0, memory_order_relaxed);
	}
	hgm_guard_hold(part->r, 0, part->r->blocks);
	return hgm_guard_register(part->r, 0, part->r->blocks);
}

static void free_snapshot(struct hgm_snapshot *s)
{
	for (uint32_t i = 0; i < s->parts; i++) {
		free(s->part[i].saving);
		free(s->part[i].armed);
	}
	free(s->part);
	hgm_pool_free(&s->pool);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->cond);
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

int hgm_snapshot_create(struct hgm_snapshot **out, struct hgm *h,
			const struct hgm_snapshot_opts *opts)
{
	struct hgm_snapshot_opts o;
	struct hgm_snapshot *s;
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
	s->stream = !o.write && hgm_sys->lseek(o.fd, 0, SEEK_CUR) == -ESPIPE;
	pthread_mutex_init(&s->lock, NULL);
	hgm_cond_init(&s->cond);
	rc = take_parts(s);
	if (!rc)
		rc = place_parts(s);
	if (!rc && hgm_pool_make(&s->pool, s->opts.pool_bytes, s->stream || o.flags))
		rc = hgm_fail(-ENOMEM,
			      "hgm_snapshot_create: no memory for a pool of %llu MiB; make "
			      "pool_bytes smaller",
			      (unsigned long long)s->opts.pool_bytes >> 20);
	for (uint32_t i = 0; i < s->parts && !rc; i++)
		rc = guard_part(s, i);
	if (!rc)
		rc = hgm_thread_start(&s->thread, "hgm-snapshot", 0, hgm_snapshot_thread, s);
	if (rc) {
		give_back(s);
		free_snapshot(s);
		return rc;
	}
	*out = s;
	return 0;
}

/* Locked. Where it has not failed its thread waits, and holds the regions. */
static int may_begin(struct hgm_snapshot *s)
{
	int error;

	if (s->begun)
		return hgm_fail(-EALREADY, "hgm_snapshot_begin: it was begun before");
	for (uint32_t i = 0; i < s->parts && !atomic_load(&s->error); i++)
		if (atomic_load_explicit(&s->part[i].r->dying, memory_order_acquire))
			hgm_snapshot_fail(s, -ECANCELED);
	error = atomic_load_explicit(&s->error, memory_order_acquire);
	return error ? hgm_fail(error, "hgm_snapshot_begin: it has failed already: %s",
				hgm_errno_name(error))
		     : 0;
}

static int arm_all(struct hgm_snapshot *s)
{
	int rc = 0;

	for (uint32_t i = 0; i < s->parts; i++)
		hgm_guard_hush(s->part[i].r);
	for (uint32_t i = 0; i < s->parts; i++)
		hgm_guard_wait(s->part[i].r);
	for (uint32_t i = 0; i < s->parts && !rc; i++)
		rc = hgm_guard_arm(s->part[i].r, s->part[i].armed);
	return rc;
}

int hgm_snapshot_begin(struct hgm_snapshot *s)
{
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
	pthread_mutex_unlock(&s->lock);
	pthread_cond_broadcast(&s->cond); /* unlocked, that nobody is woken to wait again */
	return rc;
}

int hgm_snapshot_wait(struct hgm_snapshot *s, int timeout_ms)
{
	uint64_t deadline = UINT64_MAX, left;
	bool late = timeout_ms == 0;
	int rc;

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
	/* Never begun, and failed: no sink or source is asked any more, it ends at once. */
	if (!s->begun && !rc) {
		deadline = UINT64_MAX;
		late = false;
	}
	while (!rc && s->state != HGM_SNAPSHOT_ENDED && !late)
		late = hgm_cond_wait(&s->cond, &s->lock, deadline);
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
	rc = atomic_load_explicit(&s->error, memory_order_acquire);
	if (rc)
		return hgm_fail(rc, "hgm_snapshot_wait: it has failed: %s", hgm_errno_name(rc));
	if (left)
		return hgm_fail(-ENODATA,
				"hgm_snapshot_wait: %llu bytes could not be read, they are zeroes "
				"in the snapshot",
				(unsigned long long)left << HGM_PAGE_SHIFT);
	return 0;
}

int hgm_snapshot_cancel(struct hgm_snapshot *s)
{
	if (!s)
		return hgm_fail(-EINVAL, "hgm_snapshot_cancel: the snapshot is NULL");
	pthread_mutex_lock(&s->lock);
	if (s->state != HGM_SNAPSHOT_ENDED)
		hgm_snapshot_fail(s, -ECANCELED);
	hgm_snapshot_give_up_peek(s);
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
	if (!s)
		return;
	hgm_snapshot_cancel(s);
	pthread_join(s->thread, NULL);
	free_snapshot(s);
}
