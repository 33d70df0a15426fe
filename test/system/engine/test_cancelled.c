/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads of the caller that are cancelled (pthread_cancel). A wait ends and leaves nothing locked.
 * Every other call runs to its end.
 */
#include "harness.h"

#include <errno.h>

#define WAIT_MS SMALLER(20000, 100000)

static const struct contents contents = { .seed = 12, .holes = true };

static void *wait_for_all(void *arg)
{
	hgm_wait(arg, -1);
	return NULL;
}

static void *wait_for_snapshot(void *arg)
{
	hgm_snapshot_wait(arg, -1);
	return NULL;
}

static void cancel_in(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	void *result;

	assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
	nap_us(20000); /* most probably it is asleep now */
	assert_int_equal(pthread_cancel(thread), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, PTHREAD_CANCELED);
}

static void waiting_for_memory(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NEVER, &contents, 4 * MIB);
	struct hgm *h = engine(1);
	struct ram ram;

	(void)state;
	watch("hgm_wait() after a cancelled one", 60);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < 3; i++)
		cancel_in(wait_for_all, h);
	assert_error(hgm_wait(h, 10), -ETIMEDOUT);
	provider_answer_below(provider, ram.length / PAGE);
	provider_give(provider);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

/* A sink that takes nothing until it is told to. */
struct gate {
	_Atomic bool entered;
	_Atomic bool open;
};

static int64_t pass(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct gate *gate = user;

	(void)buf;
	(void)offset;
	atomic_store(&gate->entered, true);
	while (!atomic_load(&gate->open))
		nap_us(200);
	return (int64_t)length;
}

static bool is_entered(void *arg)
{
	return atomic_load(&((struct gate *)arg)->entered);
}

static void waiting_for_a_snapshot(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
	struct gate gate = { .open = false };
	const struct hgm_snapshot_opts opts = { .size = sizeof(opts),
						.write = pass,
						.user = &gate };
	struct hgm *h = engine(1);
	struct hgm_snapshot *s;
	struct ram ram;

	(void)state;
	watch("hgm_snapshot_wait() after a cancelled one", 60);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, provider_source(provider), 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_ok(hgm_snapshot_create(&s, h, &opts));
	assert_ok(hgm_snapshot_begin(s));
	assert_true(eventually(is_entered, &gate, 5000));
	cancel_in(wait_for_snapshot, s);
	assert_error(hgm_snapshot_wait(s, 10), -ETIMEDOUT);
	atomic_store(&gate.open, true);
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

/* The thread is cancelled before its first call. All its calls run to their end. */
struct life {
	struct hgm_source *source;
	const char *path;
	_Atomic int last_call; /* how many returned as they must */
	int rc;
};

static bool call(struct life *l, int rc)
{
	l->rc = rc;
	if (!rc)
		atomic_fetch_add(&l->last_call, 1);
	return !rc;
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)offset;
	return (int64_t)length;
}

static __attribute__((noinline)) void whole_life(struct life *l)
{
	struct hgm_region_opts opts = { .size = sizeof(opts),
					.length = 4 * MIB,
					.source = l->source,
					.backing = HGM_BACKING_SHMEM,
					.flags = HGM_REGION_NO_FILL | HGM_REGION_DEFER_COLLAPSE };
	const struct hgm_snapshot_opts snapshot_opts = { .size = sizeof(snapshot_opts),
							 .write = take };
	struct hgm_snapshot *s;
	struct hgm_source *file;
	struct hgm_region *r;
	struct hgm *h;

	if (!call(l, hgm_source_file(&file, l->path)))
		return;
	hgm_source_destroy(file);
	if (!call(l, hgm_create(&h, NULL)) || !call(l, hgm_region_create(&r, h, &opts)) ||
	    !call(l, hgm_start(h)) || !call(l, hgm_region_prefetch(r, 0, opts.length)) ||
	    !call(l, hgm_region_collapse(r)) || !call(l, hgm_region_watch(r, NULL)) ||
	    !call(l, hgm_region_unwatch(r)) || !call(l, hgm_region_before_write(r, 0, 4096)) ||
	    !call(l, hgm_region_discard(r, 0, 4096)) ||
	    !call(l, hgm_snapshot_create(&s, h, &snapshot_opts)) ||
	    !call(l, hgm_snapshot_begin(s)) || !call(l, hgm_snapshot_cancel(s)))
		return;
	hgm_snapshot_destroy(s);
	hgm_region_destroy(r);
	hgm_destroy(h);
	call(l, 0);
}

/* AddressSanitizer does not see a forced unwinding, so the frame that is unwound is empty. */
static void *live_cancelled(void *life)
{
	pthread_cancel(pthread_self());
	whole_life(life);
	pthread_testcancel();
	return NULL;
}

static void all_else_goes_on(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 4 * MIB);
	struct life life = { .source = provider_source(provider), .path = "/proc/self/exe" };
	pthread_t thread;
	void *result;

	(void)state;
	watch("a life under cancellation", 60);
	assert_int_equal(pthread_create(&thread, NULL, live_cancelled, &life), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	if (life.last_call != 14 || result != PTHREAD_CANCELED)
		fail_msg("cancelled after %d calls of 14, the last returned %d", life.last_call,
			 life.rc);
	provider_free(provider);
	calm();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(waiting_for_memory),
	cmocka_unit_test(waiting_for_a_snapshot),
	cmocka_unit_test(all_else_goes_on),
};

TEST_MAIN(tests)
