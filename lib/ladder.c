/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ladder: the kinds of memory that a region can use, best first, and why it does not use a
 * better one.
 *
 * A rung is refused before anything is allocated for it, because of what the caller asked for, or
 * because of what a test of the kernel has shown. A rung that turns out to be unavailable (no huge
 * pages free) is given up, and the next one is tried.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <hgm/error.h>

#include "caps.h"
#include "hgm.h"
#include "error.h"

#define MIB2 (UINT64_C(2) << 20)
#define GIB1 (UINT64_C(1) << 30)

#define BIT(rung) (UINT32_C(1) << (rung))

static const char *const names[] = {
	[HGM_RUNG_NATIVE] = "hugetlb with high-granularity mapping",
	[HGM_RUNG_SHMEM] = "shmem prepared",
	[HGM_RUNG_SHMEM_LAZY] = "shmem lazy",
	[HGM_RUNG_HUGETLB] = "hugetlb in whole blocks",
	[HGM_RUNG_ANON] = "anon",
};

static bool is_hugetlb(enum hgm_rung rung)
{
	return rung == HGM_RUNG_NATIVE || rung == HGM_RUNG_HUGETLB;
}

static uint64_t block_of(const struct hgm_ladder *l)
{
	if (l->kind.block_bytes)
		return l->kind.block_bytes;
	return l->opts->block_bytes ? l->opts->block_bytes : MIB2;
}

/* The rungs that the requested backing stands for. */
static uint32_t rungs_of(const struct hgm_ladder *l)
{
	const struct hgm_region_opts *o = l->opts;

	switch (o->backing) {
	case HGM_BACKING_AUTO:
		return BIT(HGM_RUNGS) - 1;
	case HGM_BACKING_SHMEM:
		return BIT(HGM_RUNG_SHMEM);
	case HGM_BACKING_SHMEM_LAZY:
		return BIT(HGM_RUNG_SHMEM_LAZY);
	case HGM_BACKING_ANON:
		return BIT(HGM_RUNG_ANON);
	case HGM_BACKING_MAPPING:
		if (o->fd < 0)
			return BIT(HGM_RUNG_ANON);
		break;
	case HGM_BACKING_HUGETLB:
		return BIT(HGM_RUNG_NATIVE) | BIT(HGM_RUNG_HUGETLB);
	}
	if (l->kind.hugetlb)
		return BIT(HGM_RUNG_NATIVE) | BIT(HGM_RUNG_HUGETLB);
	return BIT(o->flags & HGM_REGION_LAZY ? HGM_RUNG_SHMEM_LAZY : HGM_RUNG_SHMEM);
}

__attribute__((format(printf, 3, 4))) static int refuse(char why[512], int rc, const char *format,
							...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, 512, format, ap);
	va_end(ap);
	return rc;
}

static int check_size(const struct hgm_ladder *l, enum hgm_rung rung, char why[512])
{
	uint64_t block = block_of(l);

	if (!is_hugetlb(rung) && block != MIB2)
		return refuse(why, -EINVAL, "block_bytes %llu: this backing has 2 MiB only",
			      (unsigned long long)block);
	if (is_hugetlb(rung) && block != MIB2 && block != GIB1)
		return refuse(why, -EINVAL, "block_bytes %llu: hugetlb has 2 MiB and 1 GiB",
			      (unsigned long long)block);
	if (is_hugetlb(rung) && l->opts->length % block)
		return refuse(why, -EINVAL,
			      "length %llu is no multiple of the huge page, %llu bytes",
			      (unsigned long long)l->opts->length, (unsigned long long)block);
	return 0;
}

static int check_wishes(const struct hgm_ladder *l, enum hgm_rung rung, char why[512])
{
	const struct hgm_region_opts *o = l->opts;
	uint64_t map_bytes = rung == HGM_RUNG_HUGETLB ? block_of(l) : HGM_PAGE_BYTES;
	bool commits = is_hugetlb(rung) || rung == HGM_RUNG_SHMEM;

	if (o->map_bytes_max && map_bytes > o->map_bytes_max)
		return refuse(why, -EOPNOTSUPP,
			      "faults wait for %llu kB, at most %llu kB were asked (map_bytes_max)",
			      (unsigned long long)map_bytes >> 10,
			      (unsigned long long)o->map_bytes_max >> 10);
	if (o->require & HGM_REQUIRE_HUGETLB && !is_hugetlb(rung))
		return refuse(why, -EOPNOTSUPP, "is not hugetlb (HGM_REQUIRE_HUGETLB)");
	if (o->require & HGM_REQUIRE_SHARED && rung == HGM_RUNG_ANON)
		return refuse(why, -EOPNOTSUPP, "cannot be shared (HGM_REQUIRE_SHARED)");
	if (o->avoid & HGM_AVOID_COMMIT && commits)
		return refuse(why, -EOPNOTSUPP, "is allocated up front (HGM_AVOID_COMMIT)");
	if (o->avoid & HGM_AVOID_HUGETLB && is_hugetlb(rung))
		return refuse(why, -EOPNOTSUPP, "takes huge pages of the pool (HGM_AVOID_HUGETLB)");
	if (o->avoid & HGM_AVOID_HGM && rung == HGM_RUNG_NATIVE)
		return refuse(why, -EOPNOTSUPP, "not wanted (HGM_AVOID_HGM)");
	return 0;
}

/* What the kernel is tested for. */
enum question {
	IS_NATIVE,
	PROTECTS_PAGES,
	COLLAPSES_ANON,
	COLLAPSES_SHMEM,
};

static void try_kernel(struct hgm_probe *p, enum question question, uint64_t block)
{
	const struct hgm_probe_row anon = { .memory = HGM_MEMORY_ANON, .block = true };
	const struct hgm_probe_row shmem = { .memory = HGM_MEMORY_SHMEM, .block = true };

	switch (question) {
	case IS_NATIVE:
		hgm_probe_hgm_verdict(p, block);
		break;
	case PROTECTS_PAGES:
		hgm_prove_writeprotect(p, block == GIB1 ? HGM_MEMORY_HUGETLB_1G
							: HGM_MEMORY_HUGETLB_2M);
		break;
	case COLLAPSES_ANON:
		hgm_probe_collapse(p, &anon);
		break;
	case COLLAPSES_SHMEM:
		hgm_probe_collapse_prepared(p, &shmem);
		break;
	}
}

/*
 * Test the kernel on scratch memory, once per engine. Two concurrent callers may both run the test.
 * A test that could not be run now is run again the next time.
 */
static int ask(struct hgm *h, struct hgm_ability *known, enum question question, uint64_t block,
	       char why[512])
{
	struct hgm_ability a;

	pthread_mutex_lock(&h->abilities.lock);
	a = *known;
	pthread_mutex_unlock(&h->abilities.lock);
	if (!a.known) {
		struct hgm_probe p = { .flags = HGM_CAPS_USE_HUGE_PAGES, .page = HGM_PAGE_BYTES };

		try_kernel(&p, question, block);
		a.known = p.answer != HGM_UNPROVEN;
		/* A shortage of memory at the moment is no reason to do without huge mappings. */
		a.have = p.answer == HGM_YES ||
			 (p.answer == HGM_UNPROVEN && question >= COLLAPSES_ANON);
		memcpy(a.reason, p.reason, sizeof(a.reason));
		pthread_mutex_lock(&h->abilities.lock);
		*known = a;
		pthread_mutex_unlock(&h->abilities.lock);
	}
	return a.have ? 0 : refuse(why, -EOPNOTSUPP, "%s", a.reason);
}

static int check_collapse(const struct hgm_ladder *l, enum hgm_rung rung, char why[512])
{
	struct hgm_abilities *a = &l->h->abilities;

	/* A backing that the caller named is used, huge or not, unless HGM_REQUIRE_HUGE is set. */
	if (is_hugetlb(rung) || (!(l->opts->require & HGM_REQUIRE_HUGE) &&
				 (l->opts->backing != HGM_BACKING_AUTO || rung != HGM_RUNG_SHMEM)))
		return 0;
	if (l->opts->flags & HGM_REGION_NO_COLLAPSE)
		return 0;
	if (rung == HGM_RUNG_ANON)
		return ask(l->h, &a->collapse_anon, COLLAPSES_ANON, MIB2, why);
	return ask(l->h, &a->collapse_shmem, COLLAPSES_SHMEM, MIB2, why);
}

static int check_kernel(const struct hgm_ladder *l, enum hgm_rung rung, char why[512])
{
	uint64_t have = hgm_uffd_features(l->h->uffd[0]);
	struct hgm_abilities *a = &l->h->abilities;

	if (is_hugetlb(rung) && !(have & HGM_UFFD_FEATURE_MINOR_HUGETLBFS))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no MINOR_HUGETLBFS (5.13 or later "
			      "has); use HGM_BACKING_ANON");
	if ((rung == HGM_RUNG_SHMEM || rung == HGM_RUNG_SHMEM_LAZY) &&
	    !(have & HGM_UFFD_FEATURE_MINOR_SHMEM))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no MINOR_SHMEM (5.14 or later has); "
			      "use HGM_BACKING_ANON");
	/* Without it, faults are reported, and threads wait, at the start of the huge page. */
	if (rung == HGM_RUNG_NATIVE && !(have & HGM_UFFD_FEATURE_EXACT_ADDRESS))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no EXACT_ADDRESS (5.18 or later has)");
	if (rung == HGM_RUNG_NATIVE)
		return ask(l->h, block_of(l) == GIB1 ? &a->native_1g : &a->native_2m, IS_NATIVE,
			   block_of(l), why);
	return check_collapse(l, rung, why);
}

bool hgm_ladder_protects_pages(struct hgm *h, uint64_t block)
{
	struct hgm_abilities *a = &h->abilities;
	char why[512];

	/* It must also be possible to map such pages write-protected. */
	return h->can_continue_wp &&
	       !ask(h, block == GIB1 ? &a->protect_1g : &a->protect_2m, PROTECTS_PAGES, block, why);
}

static void remember(struct hgm_ladder *l, enum hgm_rung rung, const char *why)
{
	size_t used = strlen(l->refused);

	if (l->single)
		snprintf(l->refused, sizeof(l->refused), "%s", why);
	else
		snprintf(l->refused + used, sizeof(l->refused) - used, "%s%s: %s", used ? "; " : "",
			 names[rung], why);
}

int hgm_ladder_begin(struct hgm_ladder *l, struct hgm *h, const struct hgm_region_opts *o)
{
	uint64_t max = o->map_bytes_max;
	int rc;

	*l = (struct hgm_ladder){ .h = h, .opts = o };
	if (o->require & ~(HGM_REQUIRE_HUGETLB | HGM_REQUIRE_SHARED | HGM_REQUIRE_HUGE) ||
	    o->avoid & ~(HGM_AVOID_COMMIT | HGM_AVOID_HUGETLB | HGM_AVOID_HGM))
		return hgm_fail(-EINVAL, "hgm_region_create: unknown require 0x%x or avoid 0x%x",
				o->require, o->avoid);
	if (max && (max & (max - 1) || max < HGM_PAGE_BYTES))
		return hgm_fail(-EINVAL,
				"hgm_region_create: map_bytes_max %llu is no power of two from "
				"4096 on",
				(unsigned long long)max);
	if (o->flags & HGM_REGION_NO_COLLAPSE &&
	    (o->require & HGM_REQUIRE_HUGE || o->flags & HGM_REGION_DEFER_COLLAPSE))
		return hgm_fail(-EINVAL, "hgm_region_create: HGM_REGION_NO_COLLAPSE contradicts %s",
				o->require & HGM_REQUIRE_HUGE ? "HGM_REQUIRE_HUGE"
							      : "HGM_REGION_DEFER_COLLAPSE");
	if (o->backing == HGM_BACKING_FD || (o->backing == HGM_BACKING_MAPPING && o->fd >= 0)) {
		rc = hgm_memory_kind(o, &l->kind);
		if (rc)
			return rc;
	}
	l->left = rungs_of(l);
	l->single = !(l->left & (l->left - 1));
	return 0;
}

int hgm_ladder_next(struct hgm_ladder *l, enum hgm_rung *rung)
{
	char why[512];
	int rc;

	while (l->left) {
		*rung = (enum hgm_rung)__builtin_ctz(l->left);
		l->left &= l->left - 1;
		rc = check_size(l, *rung, why);
		if (!rc)
			rc = check_wishes(l, *rung, why);
		if (!rc)
			rc = check_kernel(l, *rung, why);
		if (!rc)
			return 0;
		if (!l->tried)
			l->rc = rc;
		remember(l, *rung, why);
	}
	if (l->single)
		return hgm_fail(l->rc, "hgm_region_create: %s", l->refused);
	return hgm_fail(l->rc, "hgm_region_create: no memory is to be had as asked: %s",
			l->refused);
}

void hgm_ladder_failed(struct hgm_ladder *l, enum hgm_rung rung, int rc)
{
	char why[512];

	snprintf(why, sizeof(why), "%s", hgm_errmsg());
	l->tried = true;
	l->rc = rc;
	remember(l, rung, why);
}
