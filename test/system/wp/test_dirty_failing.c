/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each call that dirty tracking makes to the kernel fails once, at every place where it can. No
 * write is lost, no thread is left asleep, nothing stays behind, and then all works as before.
 */
#include "failing.h"
#include "util/bits.h"

#include <errno.h>
#include <stdlib.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(6 * MIB)
#define PAGES	(LENGTH / PAGE)
#define WORDS	(PAGES / 64)

static const struct contents contents = { .seed = 103 };

struct scene {
	enum backing backing;
	uint32_t way;
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	struct hgm_dirty *d;
	uint64_t found[WORDS];
};

static void begin(struct scene *s, enum backing backing, uint32_t way)
{
	memset(s, 0, sizeof(*s));
	s->backing = backing;
	s->way = way;
	watch(backing_names[backing], 60);
	s->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), 0);
	assert_ok(hgm_start(s->h));
	assert_ok(hgm_wait(s->h, WAIT_MS));
}

static void end(struct scene *s)
{
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	calm();
}

static int start(struct scene *s)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = s->way };

	hgm_fail(0, "%s", "");
	s->d = NULL;
	return hgm_dirty_start(&s->d, s->ram.region, &o);
}

static int collect(struct scene *s)
{
	uint64_t bitmap[WORDS];
	int rc;

	hgm_fail(0, "%s", "");
	rc = hgm_dirty_collect(s->d, 0, PAGES, bitmap, NULL);
	for (uint64_t w = 0; !rc && w < WORDS; w++)
		s->found[w] |= bitmap[w];
	return rc;
}

static void poke(const struct scene *s, uint64_t page)
{
	*(volatile char *)(s->ram.addr + page * PAGE + 77) += 1;
}

/* Pages that lie apart, so that several calls protect them. Both ends are included. */
static const uint64_t written[] = { 0, 3, 300, 700, 900, 1300, PAGES - 1 };
#define WRITTEN (sizeof(written) / sizeof(written[0]))

static void write_and_find(struct scene *s, const char *when)
{
	memset(s->found, 0, sizeof(s->found));
	for (size_t i = 0; i < WRITTEN; i++)
		poke(s, written[i]);
	if (collect(s) && collect(s))
		fail_msg("%s: twice: %s", when, hgm_errmsg());
	for (size_t i = 0; i < WRITTEN; i++)
		if (!(s->found[written[i] / 64] >> written[i] % 64 & 1))
			fail_msg("%s, way %u, %s: page %llu is lost", backing_names[s->backing],
				 s->way, when, (unsigned long long)written[i]);
}

static bool all_huge(void *arg)
{
	const struct scene *s = arg;

	return huge_in_smaps(s->ram.addr, LENGTH) == LENGTH &&
	       info_of(s->ram.region).huge_bytes == LENGTH;
}

static void assert_as_ever(struct scene *s, const char *when)
{
	for (uint64_t page = 0; page < PAGES; page++)
		poke(s, page);
	assert_ok(start(s));
	collect(s);
	write_and_find(s, when);
	hgm_dirty_stop(s->d);
	if (backing_can_be_huge(s->backing) && !eventually(all_huge, s, 10000))
		fail_msg("%s, way %u, %s: %llu bytes are huge, %llu by the library's word",
			 backing_names[s->backing], s->way, when,
			 (unsigned long long)huge_in_smaps(s->ram.addr, LENGTH),
			 (unsigned long long)info_of(s->ram.region).huge_bytes);
}

/* Sanitizers check for memory leaks. The collapser has smaps open now and then. */
static bool no_more(void *arg)
{
	const struct holdings *before = arg, now = take_holdings();

	return now.descriptors <= before->descriptors && now.threads <= before->threads;
}

/* True if the call was made and failed. */
static bool fails_at(enum backing backing, uint32_t way, enum failing_verb verb, unsigned int nth)
{
	struct holdings before;
	struct scene s;
	char when[80];
	bool failed;
	int rc;

	snprintf(when, sizeof(when), "%s fails at call %u", failing_names[verb], nth);
	begin(&s, backing, way);
	assert_ok(start(&s)); /* opens the descriptors that stay open */
	hgm_dirty_stop(s.d);
	before = take_holdings();
	failing_arm(verb, nth, -ENOMEM);
	rc = start(&s);
	if (rc) {
		if (rc != -ENOMEM || strlen(hgm_errmsg()) < 15)
			fail_msg("%s: %d, '%s'", when, rc, hgm_errmsg());
		assert_null(s.d);
	} else {
		rc = collect(&s);
		assert_true(!rc || strlen(hgm_errmsg()) >= 15);
		for (unsigned int round = 0; round < 2; round++)
			write_and_find(&s, when);
		hgm_dirty_stop(s.d);
	}
	failed = failing_disarm();
	assert_true(eventually(no_more, &before, 5000));
	assert_as_ever(&s, when);
	assert_true(eventually(no_more, &before, 5000));
	end(&s);
	return failed;
}

static void each_call(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_HUGETLB_2M };
	static const uint32_t ways[] = { 0, HGM_DIRTY_SYNC };

	(void)state;
	failing_begin();
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		if (backing_lacking(backings[i], LENGTH))
			continue;
		for (size_t k = 0; k < 2; k++)
			for (int verb = 0; verb < FAILING_VERBS; verb++)
				for (unsigned int nth = 0; nth < 12; nth++)
					if (!fails_at(backings[i], ways[k], (enum failing_verb)verb,
						      nth))
						break;
	}
	failing_end();
}

static const struct CMUnitTest tests[] = { cmocka_unit_test(each_call) };

TEST_MAIN(tests)
