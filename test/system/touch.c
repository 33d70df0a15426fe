/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that touch memory, alone or many together, and survive to report the result.
 */
#include "harness.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define TOO_LATE_S SMALLER(20, 60)

/*
 * Signals that accesses to memory raise. They are caught where the thread is prepared for them, and
 * are deadly elsewhere. No signal is blocked meanwhile, except under sanitizers, whose handlers
 * have masks of their own.
 */
static _Thread_local sigjmp_buf way_back;
static _Thread_local volatile sig_atomic_t prepared;

static void on_fault(int sig)
{
	if (!prepared) {
		signal(sig, SIG_DFL);
		return;
	}
	prepared = 0;
	siglongjmp(way_back, sig);
}

/* Called in each test, because cmocka sets handlers of its own before each. */
void catch_faults(void)
{
	struct sigaction act = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
}

int touch(const void *addr, uint8_t *value)
{
	int sig = sigsetjmp(way_back, SANITIZED);

	if (!sig) {
		prepared = 1;
		*value = *(const volatile uint8_t *)addr;
	}
	prepared = 0;
	return sig;
}

int touch_write(void *addr)
{
	int sig = sigsetjmp(way_back, SANITIZED);

	if (!sig) {
		prepared = 1;
		*(volatile uint8_t *)addr = *(const volatile uint8_t *)addr;
	}
	prepared = 0;
	return sig;
}

bool page_right(const struct contents *c, uint64_t page, const void *at, int mine, char why[160])
{
	int sig = sigsetjmp(way_back, SANITIZED);
	bool right;

	if (sig) {
		snprintf(why, 160, "page %llu: %s", (unsigned long long)page,
			 sig == SIGBUS ? "SIGBUS" : "SIGSEGV");
		return false;
	}
	prepared = 1;
	right = words_right(c, page, at, mine, why);
	prepared = 0;
	return right;
}

struct toucher {
	pthread_t thread;
	const struct plan *plan;
	struct plan own;
	unsigned int slot;
	unsigned int pass;
	_Atomic uint64_t at;
	_Atomic uint64_t touched; /* pages, in all passes */
	char why[160];
};

/* A permutation of 0 ... n-1 for each pass of each thread. */
static uint64_t stride(uint64_t n, uint64_t seed)
{
	uint64_t a, b, r, s = mix(seed) % n;

	for (;; s++) {
		if (s < 2)
			continue;
		for (a = n, b = s; b; a = b, b = r)
			r = a % b;
		if (a == 1)
			return s;
	}
}

static bool pass(struct toucher *t, bool marked)
{
	const struct plan *p = &t->own;
	uint64_t n = (p->pages + p->step - 1) / p->step;
	uint64_t by = n > 2 ? stride(n, t->slot * 1000 + t->pass) : 1;
	uint64_t i = mix(t->slot + 77 * t->pass) % n;

	for (uint64_t k = 0; k < n; k++, i = (i + by) % n) {
		uint64_t page = i * p->step;
		char *at = (char *)(uintptr_t)p->addr + page * PAGE;

		if (p->stop && atomic_load_explicit(p->stop, memory_order_relaxed))
			return true;
		atomic_store_explicit(&t->at, page, memory_order_relaxed);
		if (!page_right(p->contents, p->first_page + page, at, marked ? (int)t->slot : -1,
				t->why))
			return false;
		if (p->write)
			page_mark(p->first_page + page, at, t->slot);
		atomic_fetch_add_explicit(&t->touched, 1, memory_order_relaxed);
	}
	return true;
}

static void *toucher(void *arg)
{
	struct toucher *t = arg;
	bool right = true;

	for (t->pass = 0; right && (t->own.stop || t->pass < t->own.passes); t->pass++) {
		if (t->own.stop && atomic_load_explicit(t->own.stop, memory_order_relaxed))
			break;
		right = pass(t, t->own.write && t->pass);
	}
	return NULL;
}

void touchers_start(struct touchers *t, unsigned int count, const struct plan *plan)
{
	t->count = count;
	t->each = calloc(count, sizeof(t->each[0]));
	assert_true(count <= SLOTS);
	for (unsigned int i = 0; i < count; i++) {
		t->each[i].own = *plan;
		t->each[i].own.step = plan->step ? plan->step : 1;
		t->each[i].own.passes = plan->passes ? plan->passes : 1;
		t->each[i].slot = i;
		assert_int_equal(pthread_create(&t->each[i].thread, NULL, toucher, &t->each[i]), 0);
	}
}

static bool join_in_time(pthread_t thread)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += TOO_LATE_S;
	return !pthread_timedjoin_np(thread, NULL, &ts);
}

void touchers_join(struct touchers *t)
{
	char why[160] = "";

	for (unsigned int i = 0; i < t->count; i++) {
		uint64_t before = UINT64_MAX, now;

		/* A pass takes longer on a slow machine. A thread that goes on is in time. */
		while (!join_in_time(t->each[i].thread)) {
			now = atomic_load(&t->each[i].touched);
			if (now == before)
				fail_msg("thread %u hangs: page %llu is not served", i,
					 (unsigned long long)atomic_load(&t->each[i].at));
			before = now;
		}
		if (t->each[i].why[0])
			memcpy(why, t->each[i].why, sizeof(why));
	}
	free(t->each);
	t->each = NULL;
	if (why[0])
		fail_msg("a toucher saw %s", why);
}

static void *waiter(void *arg)
{
	struct waiter *w = arg;
	uint8_t value = 0;
	int sig = touch(w->addr, &value);

	w->value = value;
	atomic_store(&w->signal, sig);
	return NULL;
}

void waiter_start(struct waiter *w, const void *addr)
{
	w->addr = addr;
	atomic_init(&w->signal, -1);
	assert_int_equal(pthread_create(&w->thread, NULL, waiter, w), 0);
}

void waiter_join(struct waiter *w)
{
	if (!join_in_time(w->thread))
		fail_msg("a thread that waits for a page at %p was never released", w->addr);
}
