/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice of a region's memory: the candidates, best first, and why none of the better ones is
 * used.
 *
 * A candidate is refused before anything is allocated for it, because of what the caller asked for,
 * or because of what a test of the kernel has shown. One that turns out to be unavailable (no huge
 * pages free) is skipped, and the next one is tried.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <hgm/error.h>

#include "caps.h"
#include "choice.h"
#include "util/error.h"
#include "util/page.h"

#define MIB2 (UINT64_C(2) << 20)
#define GIB1 (UINT64_C(1) << 30)

#define BIT(candidate) (UINT32_C(1) << (candidate))

static const char *const names[] = {
	[HGM_CANDIDATE_NATIVE] = "hugetlb with high-granularity mapping",
	[HGM_CANDIDATE_SHMEM] = "shmem prepared",
	[HGM_CANDIDATE_SHMEM_LAZY] = "shmem lazy",
	[HGM_CANDIDATE_HUGETLB] = "hugetlb in whole blocks",
	[HGM_CANDIDATE_ANON] = "anon",
};

static bool is_hugetlb(enum hgm_candidate candidate)
{
	return candidate == HGM_CANDIDATE_NATIVE || candidate == HGM_CANDIDATE_HUGETLB;
}

static uint64_t block_of(const struct hgm_choice *c)
{
	if (c->kind.block_bytes)
		return c->kind.block_bytes;
	return c->opts->block_bytes ? c->opts->block_bytes : MIB2;
}

/* The candidates that the requested backing stands for. */
static uint32_t candidates_of(const struct hgm_choice *c)
{
	const struct hgm_region_opts *o = c->opts;

	switch (o->backing) {
	case HGM_BACKING_AUTO:
		return BIT(HGM_CANDIDATES) - 1;
	case HGM_BACKING_SHMEM:
		return BIT(HGM_CANDIDATE_SHMEM);
	case HGM_BACKING_SHMEM_LAZY:
		return BIT(HGM_CANDIDATE_SHMEM_LAZY);
	case HGM_BACKING_ANON:
	case HGM_BACKING_PEER:
		return BIT(HGM_CANDIDATE_ANON);
	case HGM_BACKING_MAPPING:
		if (o->fd < 0)
			return BIT(HGM_CANDIDATE_ANON);
		break;
	case HGM_BACKING_HUGETLB:
		return BIT(HGM_CANDIDATE_NATIVE) | BIT(HGM_CANDIDATE_HUGETLB);
	}
	if (c->kind.hugetlb)
		return BIT(HGM_CANDIDATE_NATIVE) | BIT(HGM_CANDIDATE_HUGETLB);
	return BIT(o->flags & HGM_REGION_LAZY ? HGM_CANDIDATE_SHMEM_LAZY : HGM_CANDIDATE_SHMEM);
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

static int check_size(const struct hgm_choice *c, enum hgm_candidate candidate, char why[512])
{
	uint64_t block = block_of(c);

	if (!is_hugetlb(candidate) && block != MIB2)
		return refuse(why, -EINVAL, "block_bytes %llu: this backing supports only 2 MiB",
			      (unsigned long long)block);
	if (is_hugetlb(candidate) && block != MIB2 && block != GIB1)
		return refuse(why, -EINVAL,
			      "block_bytes %llu: hugetlb supports only 2 MiB and 1 GiB",
			      (unsigned long long)block);
	if (is_hugetlb(candidate) && c->opts->length % block)
		return refuse(why, -EINVAL,
			      "length %llu is not a multiple of the huge page size, %llu bytes",
			      (unsigned long long)c->opts->length, (unsigned long long)block);
	return 0;
}

static int check_wishes(const struct hgm_choice *c, enum hgm_candidate candidate, char why[512])
{
	const struct hgm_region_opts *o = c->opts;
	uint64_t map_bytes = candidate == HGM_CANDIDATE_HUGETLB ? block_of(c) : HGM_PAGE_BYTES;
	bool commits = is_hugetlb(candidate) || candidate == HGM_CANDIDATE_SHMEM;

	if (o->map_bytes_max && map_bytes > o->map_bytes_max)
		return refuse(why, -EOPNOTSUPP,
			      "faults wait for %llu kB, but the caller allows at most %llu kB "
			      "(map_bytes_max)",
			      (unsigned long long)map_bytes >> 10,
			      (unsigned long long)o->map_bytes_max >> 10);
	if (o->require & HGM_REQUIRE_HUGETLB && !is_hugetlb(candidate))
		return refuse(why, -EOPNOTSUPP, "this memory is not hugetlb (HGM_REQUIRE_HUGETLB)");
	if (o->require & HGM_REQUIRE_SHARED && candidate == HGM_CANDIDATE_ANON)
		return refuse(why, -EOPNOTSUPP,
			      "this memory cannot be shared (HGM_REQUIRE_SHARED)");
	if (o->require & HGM_REQUIRE_HUGE && !hgm_memory_fits(o, block_of(c)))
		return refuse(why, -EOPNOTSUPP, HGM_SAY_DOES_NOT_FIT " (HGM_REQUIRE_HUGE)");
	if (o->avoid & HGM_AVOID_COMMIT && commits)
		return refuse(why, -EOPNOTSUPP,
			      "this memory is allocated up front (HGM_AVOID_COMMIT)");
	if (o->avoid & HGM_AVOID_HUGETLB && is_hugetlb(candidate))
		return refuse(why, -EOPNOTSUPP,
			      "this memory takes huge pages from the pool (HGM_AVOID_HUGETLB)");
	if (o->avoid & HGM_AVOID_HGM && candidate == HGM_CANDIDATE_NATIVE)
		return refuse(why, -EOPNOTSUPP, "the caller excludes it (HGM_AVOID_HGM)");
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
static int ask(struct hgm_abilities *all, struct hgm_ability *known, enum question question,
	       uint64_t block, char why[512])
{
	struct hgm_ability a;

	pthread_mutex_lock(&all->lock);
	a = *known;
	pthread_mutex_unlock(&all->lock);
	if (!a.known) {
		struct hgm_probe p = {
			.flags = HGM_CAPS_USE_HUGE_PAGES,
			.page = HGM_PAGE_BYTES,
			.by_feature = hgm_choice_by_feature(all),
			/* Pages of 4 KiB need the bit in the engine's userfaultfds. */
			.bit13 = hgm_choice_by_feature(all) ? HGM_BIT13_IS_HGM : HGM_BIT13_IS_OTHER,
		};

		try_kernel(&p, question, block);
		a.known = p.answer != HGM_UNPROVEN;
		/* A shortage of memory at the moment is no reason to do without huge mappings. */
		a.have = p.answer == HGM_YES ||
			 (p.answer == HGM_UNPROVEN && question >= COLLAPSES_ANON);
		memcpy(a.reason, p.reason, sizeof(a.reason));
		pthread_mutex_lock(&all->lock);
		*known = a;
		pthread_mutex_unlock(&all->lock);
	}
	return a.have ? 0 : refuse(why, -EOPNOTSUPP, "%s", a.reason);
}

static int check_collapse(const struct hgm_choice *c, enum hgm_candidate candidate, char why[512])
{
	struct hgm_abilities *a = c->able;

	/* A backing that the caller named is used, huge or not, unless HGM_REQUIRE_HUGE is set. */
	if (is_hugetlb(candidate) ||
	    (!(c->opts->require & HGM_REQUIRE_HUGE) &&
	     (c->opts->backing != HGM_BACKING_AUTO || candidate != HGM_CANDIDATE_SHMEM)))
		return 0;
	if (c->opts->flags & HGM_REGION_NO_COLLAPSE)
		return 0;
	if (candidate == HGM_CANDIDATE_ANON)
		return ask(c->able, &a->collapse_anon, COLLAPSES_ANON, MIB2, why);
	return ask(c->able, &a->collapse_shmem, COLLAPSES_SHMEM, MIB2, why);
}

static int check_kernel(const struct hgm_choice *c, enum hgm_candidate candidate, char why[512])
{
	uint64_t have = c->able->features;
	struct hgm_abilities *a = c->able;

	if (is_hugetlb(candidate) && !(have & HGM_UFFD_FEATURE_MINOR_HUGETLBFS))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no MINOR_HUGETLBFS (Linux 5.13 or "
			      "later has it); use HGM_BACKING_ANON");
	if ((candidate == HGM_CANDIDATE_SHMEM || candidate == HGM_CANDIDATE_SHMEM_LAZY) &&
	    !(have & HGM_UFFD_FEATURE_MINOR_SHMEM))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no MINOR_SHMEM (Linux 5.14 or later "
			      "has it); use HGM_BACKING_ANON");
	/* Without it, faults are reported, and threads wait, at the start of the huge page. */
	if (candidate == HGM_CANDIDATE_NATIVE && !(have & HGM_UFFD_FEATURE_EXACT_ADDRESS))
		return refuse(why, -EOPNOTSUPP,
			      "this kernel's userfaultfd has no EXACT_ADDRESS (Linux 5.18 or later "
			      "has it)");
	if (candidate == HGM_CANDIDATE_NATIVE)
		return ask(c->able, block_of(c) == GIB1 ? &a->native_1g : &a->native_2m, IS_NATIVE,
			   block_of(c), why);
	return check_collapse(c, candidate, why);
}

uint64_t hgm_choice_features(uint64_t offered)
{
	const uint64_t bit13 = HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM;
	bool maybe = offered & bit13 && !(offered & HGM_UFFD_FEATURE_POISON);

	return maybe && hgm_probe_bit13_is_hgm() ? bit13 : 0;
}

bool hgm_choice_protects_pages(struct hgm_abilities *a, uint64_t block)
{
	char why[512];

	/* It must also be possible to map such pages write-protected. */
	return a->can_continue_wp &&
	       !ask(a, block == GIB1 ? &a->protect_1g : &a->protect_2m, PROTECTS_PAGES, block, why);
}

static void remember(struct hgm_choice *c, enum hgm_candidate candidate, const char *why)
{
	size_t used = strlen(c->refused);

	if (c->single)
		snprintf(c->refused, sizeof(c->refused), "%s", why);
	else
		snprintf(c->refused + used, sizeof(c->refused) - used, "%s%s: %s", used ? "; " : "",
			 names[candidate], why);
}

int hgm_choice_begin(struct hgm_choice *c, struct hgm_abilities *able,
		     const struct hgm_region_opts *o)
{
	uint64_t max = o->map_bytes_max;
	int rc;

	*c = (struct hgm_choice){ .able = able, .opts = o };
	if (o->require & ~(HGM_REQUIRE_HUGETLB | HGM_REQUIRE_SHARED | HGM_REQUIRE_HUGE) ||
	    o->avoid & ~(HGM_AVOID_COMMIT | HGM_AVOID_HUGETLB | HGM_AVOID_HGM))
		return hgm_fail(-EINVAL, "hgm_region_create: unknown require 0x%x or avoid 0x%x",
				o->require, o->avoid);
	if (max && (max & (max - 1) || max < HGM_PAGE_BYTES))
		return hgm_fail(-EINVAL,
				"hgm_region_create: map_bytes_max %llu is not a power of two of at "
				"least 4096",
				(unsigned long long)max);
	if (o->flags & HGM_REGION_NO_COLLAPSE &&
	    (o->require & HGM_REQUIRE_HUGE || o->flags & HGM_REGION_DEFER_COLLAPSE))
		return hgm_fail(-EINVAL, "hgm_region_create: HGM_REGION_NO_COLLAPSE contradicts %s",
				o->require & HGM_REQUIRE_HUGE ? "HGM_REQUIRE_HUGE"
							      : "HGM_REGION_DEFER_COLLAPSE");
	if (o->backing == HGM_BACKING_FD || (o->backing == HGM_BACKING_MAPPING && o->fd >= 0)) {
		rc = hgm_memory_kind(o, &c->kind);
		if (rc)
			return rc;
	}
	c->left = candidates_of(c);
	c->single = !(c->left & (c->left - 1));
	return 0;
}

int hgm_choice_next(struct hgm_choice *c, enum hgm_candidate *candidate)
{
	char why[512];
	int rc;

	while (c->left) {
		*candidate = (enum hgm_candidate)__builtin_ctz(c->left);
		c->left &= c->left - 1;
		rc = check_size(c, *candidate, why);
		if (!rc)
			rc = check_wishes(c, *candidate, why);
		if (!rc)
			rc = check_kernel(c, *candidate, why);
		if (!rc)
			return 0;
		if (!c->tried)
			c->rc = rc;
		remember(c, *candidate, why);
	}
	if (c->single)
		return hgm_fail(c->rc, "hgm_region_create: %s", c->refused);
	return hgm_fail(c->rc, "hgm_region_create: no type of memory meets the request: %s",
			c->refused);
}

void hgm_choice_failed(struct hgm_choice *c, enum hgm_candidate candidate, int rc)
{
	char why[512];

	snprintf(why, sizeof(why), "%s", hgm_errmsg());
	c->tried = true;
	c->rc = rc;
	remember(c, candidate, why);
}
