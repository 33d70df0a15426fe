/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making a snapshot: its options, its parts, its pool, and the write-protection of its regions.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "region/hgm.h"
#include "region/memory.h"
#include "snapshot.h"
#include "util/bits.h"
#include "util/cancel.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/opts.h"
#include "util/thread.h"

#define DEFAULT_POOL_BYTES (UINT64_C(64) << 20)
#define POOL_MAX_BYTES	   (UINT64_C(1) << 42)

static int check_opts(struct hgm *h, struct hgm_snapshot_opts *o)
{
	struct hgm_file_kind kind;
	int rc = 0;

	if (o->flags & ~(HGM_SNAPSHOT_ORDERED | HGM_SNAPSHOT_SYNC))
		return hgm_fail(-EINVAL, "hgm_snapshot_create: unknown flags 0x%x", o->flags);
	if (o->flags & HGM_SNAPSHOT_SYNC && o->write)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: HGM_SNAPSHOT_SYNC is only for fd; a "
					 "sink function must sync by itself");
	if (!o->write && o->fd < 0)
		return hgm_fail(-EINVAL,
				"hgm_snapshot_create: no sink: neither write nor fd is set");
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
				"hgm_snapshot_create: fd %d was opened with O_APPEND: all writes "
				"would go to its end, not to their offsets",
				o->fd);
	if (!o->write)
		rc = hgm_sink_check_file(h, o->fd, "hgm_snapshot_create");
	if (rc)
		return rc;
	if (o->regions && !o->count)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: regions is set, but count is 0; to "
					 "save all regions of the engine, set regions to NULL");
	if (o->count && !o->regions)
		return hgm_fail(-EINVAL, "hgm_snapshot_create: count is %llu, but regions is NULL",
				(unsigned long long)o->count);
	if (!atomic_load_explicit(&h->running, memory_order_acquire))
		return hgm_fail(
			-EINVAL,
			"hgm_snapshot_create: the engine was not started; call hgm_start()");
	if (o->pool_bytes && o->pool_bytes < HGM_PAGE_BYTES)
		return hgm_fail(-ENOMEM,
				"hgm_snapshot_create: pool_bytes %llu is less than a page, 4096; 0 "
				"selects the default",
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

/*
 * Collect the regions, in the order of their places in the snapshot. Pin them, which keeps them
 * alive.
 */
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
		hgm_region_pin(r);
		s->mapped_bytes +=
			(hgm_region_mapped(r) + r->wp_bytes - 1) / r->wp_bytes * r->wp_bytes;
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
				"hgm_snapshot_create: of the %llu regions, only %u are distinct "
				"regions of this engine",
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
					"hgm_snapshot_create: two regions overlap in the snapshot "
					"(source_offset %llu); save one at a time",
					(unsigned long long)r->source_offset);
		if (r->wp_bytes > s->opts.pool_bytes)
			return hgm_fail(
				-ENOMEM,
				"hgm_snapshot_create: the pool has %llu bytes%s, but a write to a "
				"region of this kind needs %llu; increase pool_bytes",
				(unsigned long long)s->opts.pool_bytes,
				by_default ? " by default" : "", (unsigned long long)r->wp_bytes);
		s->length = r->source_offset + r->length;
		s->total_pages += hgm_region_pages(r);
	}
	return 0;
}

static int protect_part(struct hgm_snapshot *s, uint32_t number)
{
	struct hgm_part *part = &s->part[number];
	uint64_t words = hgm_bits_words(part->r->mapped >> HGM_PAGE_SHIFT);
	char pid[12] = "self";
	int rc;

	part->number = number;
	rc = hgm_wp_check_faults(part->r, "hgm_snapshot_create");
	if (rc)
		return rc;
	if (hgm_region_foreign(part->r))
		snprintf(pid, sizeof(pid), "%d", part->r->view.space->pid);
	rc = part->r->fd < 0 ? hgm_memory_open(part->r) : 0;
	if (rc)
		return hgm_fail(rc,
				"hgm_snapshot_create: cannot read anonymous memory through "
				"/proc/%s/mem: %s%s",
				pid, hgm_errno_name(rc),
				rc == -EACCES
					? " (this needs the right to trace it: the same user, "
					  "or CAP_SYS_PTRACE)"
					: "");
	part->saving = calloc(words, sizeof(part->saving[0]));
	part->armed = calloc(words, sizeof(part->armed[0]));
	part->discarded = calloc(words, sizeof(part->discarded[0]));
	part->holes = calloc(words, sizeof(part->holes[0]));
	part->dropped = calloc(words, sizeof(part->dropped[0]));
	if (!part->saving || !part->armed || !part->discarded || !part->holes || !part->dropped)
		return hgm_fail(-ENOMEM, "hgm_snapshot_create: out of memory for bitmaps");
	rc = hgm_wp_begin(part->r, &s->wp, part);
	if (rc)
		return rc;
	part->wp_begun = true;
	/*
	 * Write to the bitmaps once, so that the instant does not wait until the kernel allocates
	 * them.
	 */
	for (uint64_t w = 0; w < words; w++) {
		part->armed[w] = hgm_map_present_word(part->r->map, w);
		part->discarded[w] = hgm_map_discarded_word(part->r->map, w);
		hgm_wp_clear(part->r, w, UINT64_MAX);
	}
	hgm_wp_hold(part->r, 0, part->r->blocks);
	return hgm_wp_register(part->r, 0, part->r->blocks);
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
		if (s->part[i].wp_begun)
			hgm_wp_end(s->part[i].r);
		hgm_region_unpin(s->part[i].r);
	}
}

static int make_pool(struct hgm_snapshot *s)
{
	bool ordered = s->stream || s->opts.flags & HGM_SNAPSHOT_ORDERED;
	int rc = hgm_pool_make(&s->pool, s->opts.pool_bytes, ordered);

	/* EFAULT: the memory cgroup is full. */
	return rc ? hgm_fail(rc == -EFAULT ? -ENOMEM : rc,
			     "hgm_snapshot_create: cannot allocate a pool of %llu MiB: %s; reduce "
			     "pool_bytes",
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
	s->wp = (struct hgm_wp){ .ops = &hgm_snapshot_wp_ops, .name = "a snapshot" };
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
		rc = protect_part(s, i);
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
