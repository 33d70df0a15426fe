/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One page and all orders: threads fetch the page, give it up, give it back, discard it and touch
 * it. They run one at a time, and the test tries every choice of the next thread. A thread yields
 * before each call of the map and, in tests where two threads are enough, before each access to a
 * leaf. This program includes the map's source, so that it sees these accesses. Otherwise the
 * threads do what the library does: see the essay of lib/map/map.c, discard.c, request.c, poison.c.
 *
 * In each order:
 *	the page must not have the source's contents after a discard (discarded-wins), nor raise
 *	SIGBUS, except while its owner is about to find the mark;
 *	what the guest writes after the discards stays;
 *	the page is counted once, in one state, and reported full once if it is the last of its
 *	leaf;
 *	no thread that found it claimed stays asleep (no-lost-waiter).
 */
#include <stdatomic.h>

static void pass(const volatile void *at);

#ifdef __clang__
#define OP(name)     __c11_atomic_##name
#define OP_LOAD(...) __c11_atomic_load(__VA_ARGS__)
#else
#define OP(name)     __atomic_##name
#define OP_LOAD(...) __atomic_load_n(__VA_ARGS__)
#endif

#undef atomic_fetch_or_explicit
#undef atomic_fetch_and_explicit
#undef atomic_fetch_add_explicit
#undef atomic_load_explicit
#define atomic_fetch_or_explicit(at, bits, order)  (pass(at), OP(fetch_or)(at, bits, order))
#define atomic_fetch_and_explicit(at, bits, order) (pass(at), OP(fetch_and)(at, bits, order))
#define atomic_fetch_add_explicit(at, n, order)	   (pass(at), OP(fetch_add)(at, n, order))
#define atomic_load_explicit(at, order)		   (pass(at), OP_LOAD(at, order))

#include "map/leaf.c"
#include "map/look.c"
#include "map/map.c"

#include <setjmp.h>
#include <ucontext.h>

#include "grace.h"
#include "test.h"

#define THREADS_MAX 4
#define STEPS_MAX   200
#define STACK_BYTES (256 * 1024)
#define LEAVES	    (UINT64_C(1) << 14) /* a fresh one for each order, then a fresh map */
#define ORDERS_MAX  3000000
#define ALL	    (~UINT64_C(0))
#define BIT	    5 /* of the page, in the first word of its leaf */

enum program {
	FETCH,
	FETCH_FAILS, /* and the page is given up */
	GIVE_BACK,   /* claim the page, and release it again */
	DISCARD,     /* by the call: the memory is dropped afterwards */
	DISCARD_LEAF,
	EVENT, /* once it is read, the memory may be dropped; only then it is marked and noted */
	EVENT_FOR_A_FAULT, /* the same instead of a fault, even while others copy */
	OWNER,		   /* drops the memory as soon as the event was read */
	TOUCH,		   /* a guest that reads, then writes */
	USE, /* the same on a mapped page, perhaps before it is published; without a fault */
};

static const char *const program_names[] = {
	[FETCH] = "fetch",
	[FETCH_FAILS] = "fetch in vain",
	[GIVE_BACK] = "give back",
	[DISCARD] = "discard",
	[DISCARD_LEAF] = "discard leaf",
	[EVENT] = "event",
	[EVENT_FOR_A_FAULT] = "event in the place of a fault",
	[OWNER] = "owner",
	[TOUCH] = "touch",
	[USE] = "use",
};

enum contents {
	NOTHING, /* before the page arrives */
	ZERO,
	SOURCE,
	GUEST,
};

static struct thread {
	jmp_buf at;
	char *stack;
	enum program program;
	bool done;
	bool asleep;
	bool woken; /* since it last checked */
	bool fresh; /* has done nothing yet */
} threads[THREADS_MAX];

static struct hgm_map *map;
static jmp_buf scheduler;
static _Thread_local struct thread *running;
static unsigned int count;
static bool fine; /* yield before each access, not only before each call */

/* The state in the current order. */
static uint64_t leaf, page, word, bit;
static enum contents memory;
static bool poison; /* in the page table entry */
static bool has_poison;
static unsigned int discards_open, discards_over, giving_up, full_told, published;
static bool guest_wrote, guest_wrote_last;
static bool has_event, event_is_read, event_is_marked, event_is_noted;
static unsigned int holders; /* of events: threads that copy */
static const char *wrong;

static void complain(const char *what)
{
	if (!wrong)
		wrong = what;
}

/* Yield to the other threads. */
static void step(void)
{
	if (!running)
		return;
	if (running->fresh) { /* the thread has just been chosen */
		running->fresh = false;
		return;
	}
	if (!_setjmp(running->at))
		_longjmp(scheduler, 1);
}

/* The same before a call of the map, unless its first access yields. */
static void call(void)
{
	if (!fine)
		step();
}

/* Yield between two accesses of a call, if other threads can see what is accessed. */
static void pass(const volatile void *at)
{
	const volatile char *arena, *end, *bits;

	if (!running || !fine)
		return;
	arena = (const volatile char *)map->arena;
	end = arena + arena_bytes(map);
	bits = (const volatile char *)map->poisoned;
	if (((const volatile char *)at >= arena && (const volatile char *)at < end) ||
	    ((const volatile char *)at >= bits &&
	     (const volatile char *)at < bits + poisoned_bytes(map)))
		step();
}

static void wake(void)
{
	for (unsigned int i = 0; i < count; i++) {
		if (threads[i].program == OWNER && !event_is_read)
			continue;
		threads[i].woken = true;
		threads[i].asleep = false;
	}
}

/* The waiter faulted before its fault was handled: a wake in between counts. */
static void sleep_unless_woken(void)
{
	running->asleep = !running->woken;
	step();
}

static void sleep_until(bool (*can_go_on)(void))
{
	for (;;) {
		running->woken = false;
		if (can_go_on())
			return;
		sleep_unless_woken();
	}
}

static bool is_discarded(void)
{
	call();
	return hgm_map_discarded_word(map, word) & bit;
}

static void publish(void)
{
	call();
	full_told += hgm_map_set_present(map, page, 1);
	published++;
	if (fine)
		step();
	wake();
}

/* Note the page as discarded. If this makes the caller its owner, publish it. */
static void note(void)
{
	uint64_t mine, poisoned_now, in_flight;

	call();
	if (hgm_map_discard(map, word, bit, &mine, &poisoned_now, &in_flight))
		complain("discard: no memory");
	if (mine & in_flight || (mine | in_flight) & ~bit)
		complain("discard: bits that are both, or were not asked for");
	if (mine)
		publish();
}

static void drop(void)
{
	step();
	memory = ZERO;
}

static void discard(void)
{
	note();
	drop();
	if (has_poison) {
		note();
		poison = false;
	}
	discards_open--;
	discards_over++;
}

static void discard_leaf(void)
{
	uint64_t pages;

	call();
	pages = hgm_map_discard_leaf(map, leaf);
	if (!pages) {
		discard();
		return;
	}
	if (pages != HGM_LEAF_PAGES)
		complain("discard leaf: not all of it");
	published++;
	full_told++;
	wake();
	drop();
	discards_open--;
	discards_over++;
}

static bool nobody_copies(void)
{
	return !holders;
}

static void event(enum program program)
{
	step();
	if (program == EVENT)
		sleep_until(nobody_copies);
	event_is_read = true;
	wake();
	call();
	hgm_map_mark_discarded(map, word, bit);
	event_is_marked = true;
	wake();
	if (fine)
		step();
	note();
	event_is_noted = true;
	wake();
}

static void owner(void)
{
	drop();
	discards_open--;
	discards_over++;
}

/* hgm_fault_hold_events() */
static bool may_copy(void)
{
	return event_is_read == event_is_noted;
}

static void hold_events(void)
{
	sleep_until(may_copy);
	holders++;
}

/* hgm_fault_wait_marks() */
static bool is_marked(void)
{
	return event_is_read == event_is_marked;
}

static void release_events(void)
{
	holders--;
	wake();
}

static void give_up(void)
{
	if (is_discarded()) {
		publish();
		return;
	}
	step();
	giving_up++;
	poison = has_poison = true;
	wake();
	call();
	hgm_map_set_poisoned(map, page, 1);
	if (is_discarded() || hgm_map_state(map, page) == HGM_PAGE_PRESENT) {
		step();
		if (memory == ZERO) { /* else it is left to the thread that drops the memory */
			poison = false;
			note();
		}
	}
	giving_up--;
	if (fine)
		step();
	wake();
}

/* The caller owns the page. */
static void own(enum program program)
{
	if (program == GIVE_BACK) {
		call();
		hgm_map_release(map, page, 1);
		if (fine)
			step();
		wake();
		return;
	}
	if (program == FETCH_FAILS) {
		give_up();
		return;
	}
	if (has_event)
		hold_events();
	if (!is_discarded()) {
		step();
		memory = SOURCE;
		if (has_event)
			sleep_until(is_marked);
		if (is_discarded())
			drop();
	}
	if (has_event)
		release_events();
	publish();
}

static void fetch(enum program program)
{
	uint64_t mine;

	call();
	if (hgm_map_claim(map, word, bit, &mine))
		complain("claim: no memory");
	if (mine)
		own(program);
}

static void read_and_write(void)
{
	step();
	if (discards_over && !discards_open && memory == SOURCE)
		complain("discarded-wins: read the source's contents after the discard");
	if (!discards_open && memory == NOTHING)
		complain("read what had not arrived");
	memory = GUEST;
	guest_wrote = true;
	guest_wrote_last = discards_over && !discards_open;
}

static void touch(void)
{
	for (;;) {
		running->woken = false;
		step();
		if (poison) { /* the kernel raises SIGBUS without a message */
			if (discards_over && !discards_open && !giving_up)
				complain("SIGBUS after the discard");
			return;
		}
		switch (hgm_map_state(map, page)) {
		case HGM_PAGE_PRESENT:
			read_and_write();
			return;
		case HGM_PAGE_DISCARDED:
			note();
			if (hgm_map_state(map, page) != HGM_PAGE_PRESENT)
				sleep_unless_woken();
			break;
		case HGM_PAGE_ABSENT:
			fetch(FETCH);
			break;
		default: /* poisoned: its entry is about to be set or removed */
			sleep_unless_woken();
		}
	}
}

static bool is_mapped(void)
{
	return memory == SOURCE || memory == GUEST || hgm_map_state(map, page) == HGM_PAGE_PRESENT;
}

static void use(void)
{
	sleep_until(is_mapped);
	read_and_write();
}

static void run(void)
{
	switch (running->program) {
	case DISCARD:
		discard();
		break;
	case DISCARD_LEAF:
		discard_leaf();
		break;
	case EVENT:
	case EVENT_FOR_A_FAULT:
		event(running->program);
		break;
	case OWNER:
		owner();
		break;
	case TOUCH:
		touch();
		break;
	case USE:
		use();
		break;
	default:
		fetch(running->program);
	}
}

/* Runs order by order. */
static void life(void)
{
	for (;;) {
		running->fresh = false;
		step();
		run();
		running->done = true;
	}
}

static ucontext_t born;

static void make_thread(struct thread *t)
{
	ucontext_t context;

	t->stack = malloc(STACK_BYTES);
	assert_non_null(t->stack);
	getcontext(&context);
	context.uc_stack.ss_sp = t->stack;
	context.uc_stack.ss_size = STACK_BYTES;
	context.uc_link = &born;
	makecontext(&context, life, 0);
	running = t;
	if (!_setjmp(scheduler))
		swapcontext(&born, &context);
	running = NULL;
}

/* All pages of the leaf but this one have arrived. */
static void nearly_fill(void)
{
	uint64_t mine;

	for (uint64_t w = 0; w < HGM_LEAF_WORDS; w++)
		assert_int_equal(hgm_map_claim(map, leaf * HGM_LEAF_WORDS + w, w ? ALL : ALL & ~bit,
					       &mine),
				 0);
	assert_false(hgm_map_set_present(map, leaf * HGM_LEAF_PAGES, BIT));
	assert_false(hgm_map_set_present(map, page + 1, HGM_LEAF_PAGES - 1 - BIT));
}

static void begin(bool nearly_full)
{
	if (++leaf == LEAVES) {
		hgm_map_destroy(map);
		assert_int_equal(hgm_map_create(&map, LEAVES * HGM_LEAF_PAGES), 0);
		leaf = 0;
	}
	page = leaf * HGM_LEAF_PAGES + BIT;
	word = page / 64;
	bit = UINT64_C(1) << BIT;
	memory = NOTHING;
	poison = has_poison = guest_wrote = guest_wrote_last = false;
	has_event = event_is_read = event_is_marked = event_is_noted = false;
	discards_open = discards_over = giving_up = full_told = published = holders = 0;
	wrong = NULL;
	if (nearly_full)
		nearly_fill();
	for (unsigned int i = 0; i < count; i++) {
		struct thread *t = &threads[i];

		t->done = t->woken = false;
		t->asleep = t->program == OWNER; /* until the event is read */
		t->fresh = true;
		discards_open +=
			t->program == DISCARD || t->program == DISCARD_LEAF || t->program == OWNER;
		has_event |= t->program == EVENT || t->program == EVENT_FOR_A_FAULT;
	}
}

static void check_end(bool nearly_full, uint64_t present, uint64_t poisoned)
{
	enum hgm_page_state state;
	bool is_present, is_poisoned;

	/* A page that was given back is fetched again. */
	has_event = false;
	fetch(FETCH);
	state = hgm_map_state(map, page);
	is_present = state == HGM_PAGE_PRESENT;
	is_poisoned = state == HGM_PAGE_POISONED;

	for (unsigned int i = 0; i < count; i++)
		if (!threads[i].done)
			complain("no-lost-waiter: somebody is left asleep");
	if (state == HGM_PAGE_CLAIMED || state == HGM_PAGE_DISCARDED)
		complain("the page is nobody's and in nobody's reach");
	if (discards_over && !is_present)
		complain("discarded, and not present");
	if (discards_over && poison)
		complain("discarded, and SIGBUS");
	if (discards_over && memory == SOURCE)
		complain("discarded-wins: the source's contents are there");
	if (is_present && memory == NOTHING)
		complain("present without contents");
	if (guest_wrote_last && memory != GUEST)
		complain("the guest's write is lost");
	if (is_poisoned && !poison)
		complain("poisoned, and nothing says so to those who touch it");
	if (published > 1 || published != is_present)
		complain("published twice, or not");
	if (hgm_map_leaf_full(map, leaf) != (is_present && (nearly_full || full_told)) ||
	    full_told != hgm_map_leaf_full(map, leaf))
		complain("full-once");
	if (hgm_map_present_pages(map) - present !=
	    (is_present ? hgm_map_leaf_full(map, leaf) && !nearly_full ? HGM_LEAF_PAGES : 1 : 0))
		complain("present pages are miscounted");
	if (hgm_map_poisoned_pages(map) != poisoned + is_poisoned)
		complain("poisoned pages are miscounted");
	/* The next order must find no poison. */
	if (is_poisoned) {
		uint64_t mine, poisoned_now, in_flight;

		assert_int_equal(hgm_map_discard(map, word, bit, &mine, &poisoned_now, &in_flight),
				 0);
		assert_int_equal(mine, bit);
		hgm_map_set_present(map, page, 1);
	}
}

/* The choices of an order, and how many there were each time. */
struct order {
	unsigned int steps;
	unsigned char choice[STEPS_MAX], of[STEPS_MAX];
};

static struct thread *choose(struct order *o)
{
	struct thread *able[THREADS_MAX];
	unsigned int n = 0;

	for (unsigned int i = 0; i < count; i++)
		if (!threads[i].done && !threads[i].asleep)
			able[n++] = &threads[i];
	if (!n)
		return NULL;
	assert_true(o->steps < STEPS_MAX);
	o->of[o->steps] = (unsigned char)n;
	return able[o->choice[o->steps++]];
}

static void one_order(struct order *o, bool nearly_full)
{
	uint64_t present, poisoned;
	struct thread *t;

	begin(nearly_full);
	present = hgm_map_present_pages(map);
	poisoned = hgm_map_poisoned_pages(map);
	o->steps = 0;
	while ((t = choose(o))) {
		running = t;
		if (!_setjmp(scheduler))
			_longjmp(t->at, 1);
		running = NULL;
	}
	check_end(nearly_full, present, poisoned);
}

/* Returns false after the last order. */
static bool next_order(struct order *o)
{
	while (o->steps && o->choice[o->steps - 1] + 1 == o->of[o->steps - 1])
		o->steps--;
	if (!o->steps)
		return false;
	o->choice[o->steps - 1]++;
	memset(o->choice + o->steps, 0, STEPS_MAX - o->steps);
	return true;
}

static void describe(const struct order *o)
{
	print_message("%s:", wrong);
	for (unsigned int i = 0; i < count; i++)
		print_message(" %s", program_names[threads[i].program]);
	print_message("; choices");
	for (unsigned int i = 0; i < o->steps; i++)
		print_message(" %u/%u", o->choice[i], o->of[i]);
	print_message("\n");
}

static uint64_t all_orders(const enum program *programs, unsigned int n, bool nearly_full)
{
	struct order o = { .steps = 0 };
	uint64_t orders = 0;

	count = n;
	for (unsigned int i = 0; i < n; i++)
		threads[i].program = programs[i];
	do {
		one_order(&o, nearly_full);
		if (++orders > ORDERS_MAX)
			complain("too many orders");
		if (wrong) {
			describe(&o);
			fail_msg("%s", wrong);
		}
	} while (next_order(&o));
	return orders;
}

static int set_up(void **state)
{
	(void)state;
	leaf = 0;
	for (unsigned int i = 0; i < THREADS_MAX; i++)
		make_thread(&threads[i]);
	return hgm_map_create(&map, LEAVES * HGM_LEAF_PAGES);
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < THREADS_MAX; i++)
		free(threads[i].stack);
	hgm_map_destroy(map);
	return 0;
}

static const enum program others[] = { FETCH, FETCH_FAILS, GIVE_BACK, DISCARD, TOUCH };

#define OTHERS (sizeof(others) / sizeof(others[0]))

static void two_by_each_access(void **state)
{
	uint64_t orders = 0;

	(void)state;
	fine = true;
	for (size_t i = 0; i < OTHERS; i++)
		for (size_t k = i; k < OTHERS; k++)
			orders += all_orders((enum program[]){ others[i], others[k] }, 2,
					     (i + k) % 2);
	print_message("# %llu orders\n", (unsigned long long)orders);
}

static void three_by_each_call(void **state)
{
	uint64_t orders = 0;

	(void)state;
	fine = false;
	for (size_t i = 0; i < OTHERS; i++)
		for (size_t k = i; k < OTHERS; k++)
			orders += all_orders((enum program[]){ DISCARD, others[i], others[k] }, 3,
					     (i + k) % 2);
	print_message("# %llu orders\n", (unsigned long long)orders);
}

static void a_leaf_at_once(void **state)
{
	uint64_t orders = 0;

	(void)state;
	fine = true;
	for (size_t i = 0; i < OTHERS; i++)
		orders += all_orders((enum program[]){ DISCARD_LEAF, others[i] }, 2, false);
	orders += all_orders((enum program[]){ DISCARD_LEAF, DISCARD_LEAF }, 2, false);
	fine = false;
	for (size_t i = 0; i < OTHERS; i++)
		if (others[i] != FETCH_FAILS) /* too many orders */
			orders += all_orders((enum program[]){ DISCARD_LEAF, others[i], TOUCH }, 3,
					     false);
	print_message("# %llu orders\n", (unsigned long long)orders);
}

/* The owner drops memory by itself: threads that copy can be made to wait, but not the kernel. */
static void by_an_event(void **state)
{
	static const enum program beside[] = { FETCH, GIVE_BACK, TOUCH };
	static const enum program pairs[][2] = { { FETCH, FETCH }, { FETCH, USE }, { TOUCH, USE } };
	uint64_t orders = 0;

	(void)state;
	fine = true;
	for (size_t i = 0; i < 3; i++)
		orders += all_orders((enum program[]){ EVENT, OWNER, beside[i] }, 3, i % 2);
	for (size_t i = 0; i < 2; i++) /* a guest may have seen the copy before the drop */
		orders += all_orders((enum program[]){ EVENT_FOR_A_FAULT, OWNER, beside[i] }, 3,
				     i % 2);
	fine = false;
	for (size_t i = 0; i < 3; i++)
		orders += all_orders((enum program[]){ EVENT, OWNER, pairs[i][0], pairs[i][1] }, 4,
				     i % 2);
	print_message("# %llu orders\n", (unsigned long long)orders);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(two_by_each_access),
	CASE(three_by_each_call),
	CASE(a_leaf_at_once),
	CASE(by_an_event),
};

TEST_MAIN(tests)
