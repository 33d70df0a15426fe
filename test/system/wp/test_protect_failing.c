/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Protecting fails, at each kernel call where it can fail. Then no page of the range is protected,
 * threads that waited to write to it go on, and memory outside of the range stays protected.
 */
#include "snapshotting.h"
#include "failing.h"

#include <errno.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(6 * MIB)
#define INSIDE	(2 * MIB + 64) /* protected before, and inside the range that fails */

static const struct contents contents = { .seed = 104 };

struct scene {
	enum backing backing;
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	_Atomic unsigned int asked;
	_Atomic int verdict;
};

static enum hgm_write_verdict decide(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct scene *s = user;

	(void)r;
	(void)what;
	atomic_fetch_add(&s->asked, 1);
	return (enum hgm_write_verdict)atomic_load(&s->verdict);
}

static void begin(struct scene *s, enum backing backing, uint32_t flags)
{
	memset(s, 0, sizeof(*s));
	s->backing = backing;
	watch(backing_names[backing], 60);
	s->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider), flags);
	assert_ok(hgm_start(s->h));
	assert_ok(hgm_wait(s->h, WAIT_MS));
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
	*(volatile char *)(s->ram.addr + offset) += 1;
}

static bool is_asked(void *arg)
{
	return atomic_load(&((struct scene *)arg)->asked);
}

/* True if the call that was to fail was made. */
static bool protect_fails(enum backing backing, uint32_t flags, enum failing_verb verb,
			  unsigned int nth)
{
	struct poker w;
	struct scene s;
	bool failed;
	int rc;

	begin(&s, backing, flags);
	atomic_store(&s.verdict, HGM_WRITE_WAIT);
	assert_ok(hgm_region_protect(s.ram.region, 0, 4 * MIB, 0, NULL));
	poker_start(&w, s.ram.addr + INSIDE);
	assert_true(eventually(is_asked, &s, 5000));
	failing_arm(verb, nth, -ENOMEM);
	hgm_fail(0, "%s", "");
	rc = hgm_region_protect(s.ram.region, 2 * MIB, 4 * MIB, 0, NULL);
	failed = failing_disarm();
	if (failed) {
		assert_int_equal(rc, -ENOMEM);
		assert_true(strlen(hgm_errmsg()) >= 15);
		if (!eventually(poker_done, &w, 5000))
			fail_msg("%s: %s fails at call %u: who waited waits on",
				 backing_names[backing], failing_names[verb], nth);
		atomic_store(&s.asked, 0);
		atomic_store(&s.verdict, HGM_WRITE_ALLOW);
		for (uint64_t at = 2 * MIB; at < LENGTH; at += PAGE)
			poke(&s, at);
		assert_int_equal(s.asked, 0);
		poke(&s, 2 * MIB - 1);
		assert_int_equal(s.asked, 1);
	} else {
		assert_ok(rc);
		assert_false(w.done);
	}
	atomic_store(&s.verdict, HGM_WRITE_ALLOW);
	assert_ok(hgm_region_unprotect(s.ram.region, 0, LENGTH, 0, NULL));
	assert_true(eventually(poker_done, &w, 5000));
	pthread_join(w.thread, NULL);
	/* Protecting again works as if nothing had failed. */
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	atomic_store(&s.asked, 0);
	poke(&s, LENGTH - 1);
	assert_int_equal(s.asked, 1);
	end(&s);
	return failed;
}

static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_FD_LAZY,
					 BACKING_HUGETLB_2M };
#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

static void protecting(void **state)
{
	static const enum failing_verb verbs[] = { FAILING_WRITEPROTECT, FAILING_REGISTER,
						   FAILING_UNREGISTER };

	(void)state;
	failing_begin();
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (backing_lacking(backings[i], LENGTH))
			continue;
		for (size_t k = 0; k < 3; k++) {
			for (unsigned int nth = 0;
			     nth < 8 && protect_fails(backings[i], 0, verbs[k], nth); nth++)
				protect_fails(backings[i], HGM_REGION_NO_COLLAPSE, verbs[k], nth);
		}
	}
	failing_end();
}

enum way {
	BY_UNPROTECT,
	BY_UNWATCH,
	BY_ALLOW,
	WAYS,
};

static void let_go_fails(enum backing backing, enum way way, unsigned int nth)
{
	struct poker w;
	struct scene s;

	begin(&s, backing, 0);
	atomic_store(&s.verdict, way == BY_ALLOW ? HGM_WRITE_ALLOW : HGM_WRITE_WAIT);
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	if (way == BY_ALLOW)
		failing_arm(FAILING_WRITEPROTECT, nth, -ENOMEM);
	poker_start(&w, s.ram.addr + INSIDE);
	assert_true(eventually(is_asked, &s, 5000));
	if (way != BY_ALLOW)
		failing_arm(FAILING_WRITEPROTECT, nth, -ENOMEM);
	if (way == BY_UNPROTECT)
		assert_ok(hgm_region_unprotect(s.ram.region, 0, LENGTH, 0, NULL));
	else if (way == BY_UNWATCH)
		assert_ok(hgm_region_unwatch(s.ram.region));
	if (!eventually(poker_done, &w, 5000))
		fail_msg("%s, way %d: who waited to write waits on", backing_names[backing], way);
	pthread_join(w.thread, NULL);
	failing_disarm();
	atomic_store(&s.verdict, HGM_WRITE_ALLOW);
	for (uint64_t at = 0; at < LENGTH; at += PAGE)
		poke(&s, at);
	end(&s);
}

/* A writer that is released goes on, even if the kernel does not remove the protection at once. */
static void letting_go(void **state)
{
	(void)state;
	failing_begin();
	for (size_t i = 0; i < EACH_BACKING; i++) {
		if (backing_lacking(backings[i], LENGTH))
			continue;
		for (int way = 0; way < WAYS; way++)
			for (unsigned int nth = 0; nth < 3; nth++)
				let_go_fails(backings[i], (enum way)way, nth);
	}
	failing_end();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(letting_go),
	cmocka_unit_test(protecting),
};

TEST_MAIN(tests)
