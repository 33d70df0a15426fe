/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random walks of the range walker on a small model of an address space: areas with borders and
 * holes, pages in every state, waiters, and a kernel that makes callers retry. Whatever the walk
 * finds, its report must match the resulting memory, and no thread may stay asleep on a page that
 * is present.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <hgm/uffd.h>

#include "kernel/sys.h"
#include "random.h"
#include "test.h"
#include "uffd/uffd.h"

#define STEPS  64
#define ROUNDS 40000
#define BASE   ((char *)0x7f0000000000)
#define SRC    ((const char *)0x600000000000)

enum page {
	NOTHING, /* no page in the page cache, none mapped */
	CACHED,
	MAPPED,
	MARKER, /* poisoned */
};

/* What an operation does with a page: its new state, or its error. */
static const struct rule {
	int rc;
	enum page to;
} rules[4][4] = {
	[HGM_VERB_CONTINUE] = {
		[NOTHING] = { -EFAULT, NOTHING },
		[CACHED] = { 0, MAPPED },
		[MAPPED] = { -EEXIST, MAPPED },
		[MARKER] = { 0, MAPPED },
	},
	[HGM_VERB_COPY] = {
		[NOTHING] = { 0, MAPPED },
		[CACHED] = { -EEXIST, CACHED },
		[MAPPED] = { -EEXIST, MAPPED },
		[MARKER] = { -EEXIST, MARKER },
	},
	[HGM_VERB_ZEROPAGE] = {
		[NOTHING] = { 0, MAPPED },
		[CACHED] = { -EEXIST, CACHED },
		[MAPPED] = { -EEXIST, MAPPED },
		[MARKER] = { -EEXIST, MARKER },
	},
	[HGM_VERB_POISON] = {
		[NOTHING] = { 0, MARKER },
		[CACHED] = { 0, MARKER },
		[MAPPED] = { -EEXIST, MAPPED },
		[MARKER] = { -EEXIST, MARKER },
	},
};

static struct model {
	unsigned int area[STEPS]; /* 0: not registered */
	enum page page[STEPS];
	bool waiter[STEPS];
	uint64_t step;
	uint64_t mode;
	enum hgm_verb verb;
	bool put_off;  /* the last refusal was EAGAIN without progress */
	bool stale;    /* the result field is not written where nothing was done */
	bool restless; /* the address space changes now and then */
	unsigned int calls;
	struct random random;
} m;

static int refuse(int rc, int64_t *done)
{
	m.put_off = rc == -EAGAIN;
	if (!m.stale)
		*done = rc;
	return rc;
}

static int model_range(enum hgm_verb verb, const char *addr, uint64_t len, uint64_t mode,
		       int64_t *done)
{
	uint64_t first = (uint64_t)(addr - BASE) / m.step;
	uint64_t count = len / m.step;
	uint64_t i;
	int rc = 0;

	m.calls++;
	assert_int_equal(verb, m.verb);
	assert_int_equal(mode, m.mode);
	assert_true(count && !(len % m.step) && first + count <= STEPS);
	if (m.restless && random_one_in(&m.random, 16))
		return refuse(-EAGAIN, done);
	for (i = first; i < first + count; i++)
		if (!m.area[i] || m.area[i] != m.area[first])
			return refuse(-ENOENT, done);
	for (i = first; i < first + count; i++) {
		const struct rule *rule = &rules[verb][m.page[i]];

		if (i > first && m.restless && random_one_in(&m.random, 16))
			rc = -EINTR; /* any reason to stop early */
		else
			rc = rule->rc;
		if (rc)
			break;
		m.page[i] = rule->to;
		if (!(mode & 1))
			m.waiter[i] = false;
	}
	if (i == first)
		return refuse(rc, done);
	*done = (int64_t)((i - first) * m.step);
	return rc ? -EAGAIN : 0;
}

static int model_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	return model_range(HGM_VERB_CONTINUE, addr, len, mode, done);
}

static int model_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
		      int64_t *done)
{
	(void)fd;
	assert_ptr_equal(src, SRC + ((char *)dst - BASE));
	return model_range(HGM_VERB_COPY, dst, len, mode, done);
}

static int model_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	return model_range(HGM_VERB_ZEROPAGE, addr, len, mode, done);
}

static int model_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	(void)fd;
	return model_range(HGM_VERB_POISON, addr, len, mode, done);
}

/* Only existing pages may be woken: a waiter on an absent page would just fault again. */
static int model_wake(int fd, void *addr, uint64_t len)
{
	uint64_t first = (uint64_t)((char *)addr - BASE) / m.step;

	(void)fd;
	assert_false(m.mode & 1);
	assert_true(len && !(len % m.step) && first + len / m.step <= STEPS);
	for (uint64_t i = first; i < first + len / m.step; i++) {
		assert_int_equal(rules[m.verb][m.page[i]].rc, -EEXIST);
		m.waiter[i] = false;
	}
	return 0;
}

static const struct hgm_sys model_sys = {
	.uffd_continue = model_continue,
	.uffd_copy = model_copy,
	.uffd_zeropage = model_zeropage,
	.uffd_poison = model_poison,
	.uffd_wake = model_wake,
};

static void make_up(void)
{
	static const uint64_t sizes[] = { UINT64_C(4096), UINT64_C(2) << 20, UINT64_C(1) << 30 };
	unsigned int holes = (unsigned int)random_below(&m.random, 3);
	unsigned int area = 1;
	enum page usual = (enum page)random_below(&m.random, 4);

	m.step = sizes[random_below(&m.random, 3)];
	m.verb = (enum hgm_verb)random_below(&m.random, 4);
	m.mode = random_below(&m.random, 4);
	m.stale = random_one_in(&m.random, 2);
	m.restless = random_one_in(&m.random, 2);
	for (int i = 0; i < STEPS; i++) {
		if (random_one_in(&m.random, 24))
			area++;
		m.area[i] = holes && random_one_in(&m.random, 32) ? 0 : area;
		m.page[i] =
			random_one_in(&m.random, 6) ? (enum page)random_below(&m.random, 4) : usual;
		m.waiter[i] = random_one_in(&m.random, 2);
	}
}

static int walk(struct hgm_range *r, bool until_exist)
{
	struct hgm_uffd u = { .fd = 3 };

	if (until_exist)
		return hgm_range_until_exist(&u, r, m.verb, SRC + ((char *)r->addr - BASE));
	switch (m.verb) {
	case HGM_VERB_CONTINUE:
		return hgm_uffd_continue(&u, r);
	case HGM_VERB_COPY:
		return hgm_uffd_copy(&u, r, SRC + ((char *)r->addr - BASE));
	case HGM_VERB_ZEROPAGE:
		return hgm_uffd_zeropage(&u, r);
	default:
		return hgm_uffd_poison(&u, r);
	}
}

/* The walk must report the true reason why it stopped. */
static void check_stop(int rc, const struct model *before, uint64_t at, bool until_exist)
{
	int truth = before->area[at] ? rules[m.verb][before->page[at]].rc : -ENOENT;

	if (m.put_off && rc == -EAGAIN)
		return;
	if (m.restless && rc == -EAGAIN)
		fail_msg("EAGAIN although something was done");
	assert_int_equal(rc, truth);
	if (rc == -EEXIST)
		assert_true(until_exist);
}

static void one_round(bool until_exist)
{
	uint64_t first = random_below(&m.random, STEPS);
	uint64_t count = 1 + random_below(&m.random, STEPS - first);
	struct model before;
	struct hgm_range r;
	uint64_t end, installed = 0, existed = 0;
	int rc;

	make_up();
	before = m;
	m.calls = 0;
	m.put_off = false;
	r = (struct hgm_range){
		.addr = BASE + first * m.step,
		.len = count * m.step,
		.step = m.step,
		.mode = m.mode,
	};
	rc = walk(&r, until_exist);

	assert_int_equal(r.done % m.step, 0);
	assert_true(r.done <= r.len);
	end = first + r.done / m.step;
	for (uint64_t i = 0; i < STEPS; i++) {
		const struct rule *rule = &rules[m.verb][before.page[i]];

		if (i < first || i >= end) { /* must not change */
			assert_int_equal(m.page[i], before.page[i]);
			assert_int_equal(m.waiter[i], before.waiter[i]);
			continue;
		}
		assert_int_not_equal(before.area[i], 0);
		assert_true(!rule->rc || rule->rc == -EEXIST);
		assert_int_equal(m.page[i], rule->to);
		assert_int_equal(m.waiter[i], m.mode & 1 ? before.waiter[i] : false);
		installed += !rule->rc;
		existed += rule->rc == -EEXIST;
	}
	assert_int_equal(r.installed, installed * m.step);
	assert_int_equal(r.existed, existed * m.step);
	if (until_exist)
		assert_int_equal(existed, 0);
	assert_int_equal(rc == 0, r.done == r.len);
	if (rc)
		check_stop(rc, &before, end, until_exist);
	/* For each step at most: one call, the halvings before it, one refusal. */
	assert_true(m.calls <= (r.done / m.step + 1) * 8);
}

static void any_range_over_any_memory(void **state)
{
	(void)state;
	hgm_sys = &model_sys;
	m.random.state = random_seed();
	for (int i = 0; i < ROUNDS; i++)
		one_round(false);
}

static void the_same_until_something_exists(void **state)
{
	(void)state;
	hgm_sys = &model_sys;
	m.random.state = random_seed();
	for (int i = 0; i < ROUNDS; i++)
		one_round(true);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(any_range_over_any_memory),
	cmocka_unit_test(the_same_until_something_exists),
};

TEST_MAIN(tests)
