/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A caller's watch. No thread writes to protected memory before the caller allows it, whatever
 * happens to the memory meanwhile. All threads go on once the memory is no longer protected.
 */
#include "snapshotting.h"
#include "random.h"
#include "region/hgm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(8 * MIB)
#define PAGES	(LENGTH / PAGE)

static const struct contents contents = { .seed = 91, .holes = true };

struct scene {
	struct ram ram;
	struct hgm *h;
	struct provider *provider;
	uint64_t unit;
	_Atomic unsigned int asked;
	_Atomic uint64_t offset, length; /* of the last write that was asked about */
	_Atomic int verdict;
};

static enum hgm_write_verdict decide(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct scene *s = user;

	assert_ptr_equal(r, s->ram.region);
	atomic_store(&s->offset, what->offset);
	atomic_store(&s->length, what->length);
	atomic_fetch_add(&s->asked, 1);
	return (enum hgm_write_verdict)atomic_load(&s->verdict);
}

static void begin(struct scene *s, enum backing backing, enum provider_kind kind, bool complete)
{
	memset(s, 0, sizeof(*s));
	watch(backing_names[backing], 60);
	s->provider = provider_make(kind, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), 0);
	assert_ok(hgm_start(s->h));
	if (complete)
		assert_ok(hgm_wait(s->h, WAIT_MS));
	s->unit = info_of(s->ram.region).protect_bytes;
	/* The unit of hugetlb is a page too, where that is proven to work. */
	assert_true(s->unit == PAGE || (backing >= BACKINGS_SMALL && s->unit == 2 * MIB));
	assert_ok(hgm_region_watch(s->ram.region,
				   &(struct hgm_watch_opts){ .size = sizeof(struct hgm_watch_opts),
							     .write = decide,
							     .user = s }));
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

static void poke(const struct scene *s, uint64_t offset)
{
	*(volatile uint64_t *)(s->ram.addr + offset) += 1;
}

static bool is_asked(void *arg)
{
	return atomic_load(&((struct scene *)arg)->asked);
}

static const enum backing backings[] = {
	BACKING_SHMEM,	 BACKING_SHMEM_LAZY,   BACKING_ANON,
	BACKING_FD_LAZY, BACKING_MAPPING_ANON, BACKING_HUGETLB_2M
};
#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

static void asked_once_and_let_go(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct hgm_span what = { 0 };
		struct scene s;

		if (backing_lacking(backings[i], LENGTH))
			test_skip("%s", backing_lacking(backings[i], LENGTH));
		begin(&s, backings[i], PROVIDER_NOW, true);
		assert_ok(hgm_region_protect(s.ram.region, 4 * MIB, 2 * MIB, 0, &what));
		assert_int_equal(what.offset, 4 * MIB);
		assert_int_equal(what.length, 2 * MIB);
		/* Protecting the same range again changes nothing. */
		assert_ok(hgm_region_protect(s.ram.region, 4 * MIB, 2 * MIB, 0, NULL));
		poke(&s, 0);
		poke(&s, 4 * MIB - 8);
		poke(&s, 6 * MIB);
		assert_int_equal(s.asked, 0);
		assert_pages(&contents, 4 * MIB / PAGE + 1, 1, s.ram.addr + 4 * MIB + PAGE);
		poke(&s, 5 * MIB + 16);
		assert_int_equal(s.asked, 1);
		assert_int_equal(s.offset, 5 * MIB / s.unit * s.unit);
		assert_int_equal(s.length, s.unit);
		poke(&s, 5 * MIB + 8);
		assert_int_equal(s.asked, 1);
		if (s.unit == PAGE) {
			poke(&s, 5 * MIB + PAGE);
			assert_int_equal(s.asked, 2);
		}
		assert_ok(
			hgm_region_unprotect(s.ram.region, 4 * MIB, MIB, HGM_PROTECT_ROUND, &what));
		assert_int_equal(what.length, s.unit == PAGE ? MIB : 2 * MIB);
		s.asked = 0;
		poke(&s, 4 * MIB);
		assert_int_equal(s.asked, 0);
		assert_ok(hgm_region_unwatch(s.ram.region));
		poke(&s, 6 * MIB - 8);
		assert_int_equal(s.asked, 0);
		end(&s);
	}
}

/* How a writer that waits is released. */
enum way {
	BY_UNPROTECT,
	BY_UNWATCH,
	BY_DESTROY,
	WAYS,
};

static void waits_until(enum backing backing, enum way way)
{
	struct poker w;
	struct scene s;

	begin(&s, backing, PROVIDER_NOW, true);
	s.verdict = HGM_WRITE_WAIT;
	assert_ok(hgm_region_protect(s.ram.region, 2 * MIB, 2 * MIB, 0, NULL));
	poker_start(&w, s.ram.addr + 2 * MIB);
	assert_true(eventually(is_asked, &s, 5000));
	nap_us(20000);
	assert_false(w.done);
	switch (way) {
	case BY_UNPROTECT:
		assert_ok(hgm_region_unprotect(s.ram.region, 2 * MIB, 2 * MIB, 0, NULL));
		break;
	case BY_UNWATCH:
		assert_ok(hgm_region_unwatch(s.ram.region));
		break;
	default: /* the caller's mapping stays */
		hgm_region_destroy(s.ram.region);
		s.ram.region = NULL;
	}
	pthread_join(w.thread, NULL);
	assert_true(w.done);
	end(&s);
}

static void waits_until_let_go(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		waits_until(backings[i], BY_UNPROTECT);
		waits_until(backings[i], BY_UNWATCH);
	}
	waits_until(BACKING_MAPPING, BY_DESTROY);
	waits_until(BACKING_MAPPING_ANON, BY_DESTROY);
}

/*
 * Absent pages are protected when they arrive. Pages that the kernel unmaps are protected when they
 * are mapped again.
 */
static void survives(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct scene s;
		bool asks_early;

		if (backing_lacking(backings[i], LENGTH))
			continue;
		begin(&s, backings[i], PROVIDER_NEVER, false);
		assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
		provider_answer_below(s.provider, UINT64_MAX);
		provider_give(s.provider);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		asks_early = s.asked; /* this kernel cannot map pages as protected */
		assert_pages(&contents, 0, PAGES, s.ram.addr);
		if (asks_early) {
			end(&s);
			continue;
		}
		assert_int_equal(s.asked, 0);
		poke(&s, 100 * PAGE);
		assert_int_equal(s.asked, 1);
		if (backing_can_be_huge(backings[i]))
			assert_int_equal(info_of(s.ram.region).huge_bytes, 0);
		if (backings[i] == BACKING_SHMEM) {
			assert_int_equal(madvise(s.ram.addr + MIB, MIB, MADV_DONTNEED), 0);
			assert_pages(&contents, MIB / PAGE, MIB / PAGE, s.ram.addr + MIB);
			assert_int_equal(s.asked, 1);
			poke(&s, MIB + 5 * PAGE);
			assert_int_equal(s.asked, 2);
			/*
			 * A page whose write was allowed is not protected again by being mapped
			 * again.
			 */
			assert_int_equal(madvise(s.ram.addr + MIB, MIB, MADV_DONTNEED), 0);
			poke(&s, MIB + 5 * PAGE);
			assert_int_equal(s.asked, 2);
		}
		end(&s);
	}
}

static bool six_are_huge(void *arg)
{
	return info_of(((struct scene *)arg)->ram.region).huge_bytes == 6 * MIB;
}

static bool all_are_huge(void *arg)
{
	return info_of(((struct scene *)arg)->ram.region).huge_bytes == LENGTH;
}

/*
 * A block with protected pages is split, and becomes huge again afterwards. The other blocks stay
 * huge.
 */
static void huge_pages_around_it(void **state)
{
	static const enum backing kinds[] = { BACKING_SHMEM, BACKING_ANON };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct scene s;

		begin(&s, kinds[i], PROVIDER_NOW, true);
		assert_true(all_are_huge(&s));
		assert_ok(hgm_region_protect(s.ram.region, 3 * MIB, 16 * PAGE, 0, NULL));
		assert_true(eventually(six_are_huge, &s, 5000));
		for (uint64_t at = 0; at < LENGTH; at += PAGE)
			if (at < 3 * MIB || at >= 3 * MIB + 16 * PAGE)
				poke(&s, at);
		assert_int_equal(s.asked, 0);
		/* Only a part of the protected pages is unprotected. The block stays as it is. */
		assert_ok(
			hgm_region_unprotect(s.ram.region, 3 * MIB + 8 * PAGE, 8 * PAGE, 0, NULL));
		nap_us(50000);
		poke(&s, 3 * MIB + PAGE);
		assert_int_equal(s.asked, 1);
		assert_ok(hgm_region_unprotect(s.ram.region, 3 * MIB, 16 * PAGE, 0, NULL));
		if (!eventually(all_are_huge, &s, 5000))
			fail_msg("%s: huge are %llu bytes, left split %llu, collapse error %d",
				 backing_names[kinds[i]],
				 (unsigned long long)info_of(s.ram.region).huge_bytes,
				 (unsigned long long)info_of(s.ram.region).left_split,
				 info_of(s.ram.region).collapse_error);
		/* Protecting again works on memory that is already registered for it. */
		assert_ok(hgm_region_protect(s.ram.region, 3 * MIB, PAGE, 0, NULL));
		poke(&s, 3 * MIB);
		assert_int_equal(s.asked, 2);
		end(&s);
	}
}

/* Copies word by word, because other threads may have written to the memory a moment ago. */
static void copy_words(void *to, const void *from, uint64_t length)
{
	for (uint64_t i = 0; i < length / 8; i++)
		((uint64_t *)to)[i] = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED);
}

/* Nothing changes between protect and unprotect, although threads write as fast as they can. */
static void nothing_changes_meanwhile(enum backing backing, bool complete)
{
	struct random rnd = { random_seed() };
	char *before = malloc(LENGTH), *after = malloc(LENGTH);
	struct writers writers;
	struct scene s;

	begin(&s, backing, complete ? PROVIDER_NOW : PROVIDER_LATER, complete);
	if (!complete && !s.h->abilities.can_continue_wp) { /* pages that arrive would wait too */
		free(before);
		free(after);
		end(&s);
		return;
	}
	s.verdict = HGM_WRITE_WAIT;
	writers_start(&writers, &contents, s.ram.addr, PAGES);
	for (unsigned int i = 0; i < SMALLER(60, 6); i++) {
		uint64_t first = random_below(&rnd, PAGES);
		uint64_t pages = 1 + random_below(&rnd, PAGES - first);
		struct hgm_span what;

		assert_ok(hgm_region_protect(s.ram.region, first * PAGE, pages * PAGE,
					     HGM_PROTECT_ROUND, &what));
		assert_true(what.offset <= first * PAGE &&
			    what.offset + what.length >= (first + pages) * PAGE);
		copy_words(before, s.ram.addr + what.offset, what.length);
		nap_us((unsigned int)random_below(&rnd, 1500));
		copy_words(after, s.ram.addr + what.offset, what.length);
		assert_memory_equal(before, after, what.length);
		if (random_one_in(&rnd, 4)) {
			assert_ok(hgm_region_unwatch(s.ram.region));
			assert_ok(hgm_region_watch(
				s.ram.region,
				&(struct hgm_watch_opts){ .size = sizeof(struct hgm_watch_opts),
							  .verdict = HGM_WRITE_WAIT }));
		} else {
			assert_ok(hgm_region_unprotect(s.ram.region, what.offset, what.length, 0,
						       NULL));
		}
	}
	assert_true(writers_writes(&writers) > 0);
	writers_end(&writers);
	free(before);
	free(after);
	end(&s);
}

static void protected_means_unchanged(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (backing_lacking(backings[i], LENGTH))
			continue;
		nothing_changes_meanwhile(backings[i], true);
		nothing_changes_meanwhile(backings[i], false);
	}
}

static struct {
	_Atomic int watch, unwatch, protect, unprotect;
	_Atomic bool says;
} from_inside;

static enum hgm_write_verdict calls_back(void *user, struct hgm_region *r,
					 const struct hgm_span *what)
{
	(void)user;
	atomic_store(&from_inside.protect,
		     hgm_region_protect(r, what->offset, what->length, 0, NULL));
	atomic_store(&from_inside.unprotect,
		     hgm_region_unprotect(r, what->offset, what->length, 0, NULL));
	atomic_store(&from_inside.unwatch, hgm_region_unwatch(r));
	atomic_store(&from_inside.watch, hgm_region_watch(r, NULL));
	atomic_store(&from_inside.says, strstr(hgm_errmsg(), "hgm_write_fn"));
	return HGM_WRITE_ALLOW;
}

/* Calls from inside the callback are refused. No thread hangs, and the watch goes on. */
static void called_from_inside(void **state)
{
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, PROVIDER_NOW, true);
	assert_ok(hgm_region_unwatch(s.ram.region));
	assert_ok(hgm_region_watch(s.ram.region,
				   &(struct hgm_watch_opts){ .size = sizeof(struct hgm_watch_opts),
							     .write = calls_back }));
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	for (unsigned int i = 0; i < 2; i++) {
		memset(&from_inside, 0, sizeof(from_inside));
		poke(&s, i * MIB);
		assert_int_equal(from_inside.unwatch, -EDEADLK);
		assert_int_equal(from_inside.watch, -EDEADLK);
		assert_int_equal(from_inside.protect, -EDEADLK);
		assert_int_equal(from_inside.unprotect, -EDEADLK);
		assert_true(from_inside.says);
	}
	assert_ok(hgm_region_unwatch(s.ram.region));
	end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(asked_once_and_let_go),
	cmocka_unit_test(waits_until_let_go),
	cmocka_unit_test(survives),
	cmocka_unit_test(huge_pages_around_it),
	cmocka_unit_test(protected_means_unchanged),
	cmocka_unit_test(called_from_inside),
};

TEST_MAIN(tests)
