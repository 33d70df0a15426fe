/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Servers that die, fall silent, fail, or come back as another: memory has the right bytes in the
 * end, or an error in words, and never a wrong byte.
 */
#include "server.h"

#include <errno.h>
#include <signal.h>

#define WAIT_MS 60000
#define KILLS	20

static const char *const file[] = { "-r", "file", "{image}", NULL };
static const struct contents all = { .seed = 23 };

struct scene {
	struct server s;
	struct lines lines;
	struct hgm_source *src;
	struct hgm *h;
	struct ram ram;
	uint64_t present; /* what is waited for */
	int error;
	const char *text;
};

/* Not on a stack: if a case fails, its source goes on and logs. */
static struct scene *scene_make(uint64_t length, const char *const *args,
				struct hgm_source_nbd_opts opts, struct hgm_opts engine_opts,
				uint32_t flags)
{
	struct scene *x = calloc(1, sizeof(*x));
	int rc;

	assert_non_null(x);
	pthread_mutex_init(&x->lines.lock, NULL);
	server_make(&x->s, &all, length);
	server_start(&x->s, args);
	opts.size = sizeof(opts);
	opts.log = lines_note;
	opts.log_user = &x->lines;
	do { /* the time-out of a case may be too short for a busy machine */
		rc = hgm_source_nbd(&x->src, x->s.uri, &opts);
	} while (rc == -ETIMEDOUT);
	assert_ok(rc);
	engine_opts.size = sizeof(engine_opts);
	x->h = engine_with(engine_opts);
	ram_make(&x->ram, x->h, BACKING_SHMEM, length, x->src, flags);
	assert_ok(hgm_start(x->h));
	return x;
}

static void scene_end(struct scene *x)
{
	ram_end(&x->ram);
	hgm_destroy(x->h);
	hgm_source_destroy(x->src);
	server_end(&x->s);
	pthread_mutex_destroy(&x->lines.lock);
	free(x);
}

static bool has_present(void *arg)
{
	struct scene *x = arg;

	return progress_of(x->h).present_bytes >= x->present;
}

static bool has_failed(void *arg)
{
	struct scene *x = arg;

	return progress_of(x->h).last_error == x->error;
}

static bool has_said(void *arg)
{
	struct scene *x = arg;

	return lines_have(&x->lines, x->text);
}

/* At a rate at which the restore takes longer than the kills. */
static void killed_again_and_again(void **state)
{
	static const char *const slow[] = { "-r",      "--filter=rate", "file",
					    "{image}", "rate=400M",	NULL };
	const uint64_t length = 32 * MIB;
	struct plan plan = { .contents = &all, .pages = length / PAGE };
	struct touchers t;
	struct scene *x;

	(void)state;
	x = scene_make(length, slow, (struct hgm_source_nbd_opts){ .size = 0 },
		       (struct hgm_opts){ .fault_threads = 2 }, 0);
	plan.addr = x->ram.addr;
	touchers_start(&t, 8, &plan);
	for (unsigned int i = 0; i < KILLS; i++) {
		x->present = length / (KILLS + 8) * i;
		assert_true(eventually(has_present, x, WAIT_MS));
		assert_false(progress_of(x->h).complete);
		server_kill(&x->s);
		server_start(&x->s, i + 1 < KILLS ? slow : file);
	}
	touchers_join(&t);
	assert_ok(hgm_wait(x->h, WAIT_MS));
	assert_pages(&all, 0, length / PAGE, x->ram.addr);
	assert_int_equal(progress_of(x->h).poisoned_bytes, 0);
	assert_true(lines_have(&x->lines, "a connection was lost"));
	assert_true(lines_have(&x->lines, "connected again"));
	scene_end(x);
}

/* Then it comes back as it was. */
static void comes_back_with_another_size(void **state)
{
	const uint64_t length = 8 * MIB;
	struct waiter w;
	struct scene *x;
	uint8_t value;

	(void)state;
	x = scene_make(length, file, (struct hgm_source_nbd_opts){ .size = 0 },
		       (struct hgm_opts){ .retries = 2 }, HGM_REGION_NO_FILL);
	assert_int_equal(touch(x->ram.addr, &value), 0);
	server_kill(&x->s);
	assert_int_equal(truncate(x->s.image, (off_t)(length / 2)), 0);
	server_start(&x->s, file);
	waiter_start(&w, x->ram.addr + MIB);
	x->error = -ESTALE;
	assert_true(eventually(has_failed, x, WAIT_MS));
	assert_true(lines_have(&x->lines, "has 4194304 bytes, and had 8388608 before"));
	if (kernel_has(KERNEL_POISON)) {
		waiter_join(&w);
		assert_int_equal(w.signal, SIGBUS);
	}
	server_kill(&x->s);
	server_image(&x->s, &all, length);
	server_start(&x->s, file);
	x->text = "connected again";
	assert_true(eventually(has_said, x, WAIT_MS));
	if (kernel_has(KERNEL_POISON))
		assert_true(hgm_region_retry(x->ram.region) >= 0);
	else
		waiter_join(&w);
	assert_pages(&all, 0, length / PAGE, x->ram.addr);
	scene_end(x);
}

/* A stopped server: its socket takes connections, and nobody answers. */
static void falls_silent(void **state)
{
	struct hgm_source_nbd_opts opts = { .timeout_ms = 50, .give_up_ms = 150 };
	const uint64_t length = 8 * MIB;
	struct waiter w;
	struct scene *x;
	uint8_t value;

	(void)state;
	x = scene_make(length, file, opts, (struct hgm_opts){ .retries = 2 }, HGM_REGION_NO_FILL);
	assert_int_equal(touch(x->ram.addr, &value), 0);
	server_stop(&x->s);
	waiter_start(&w, x->ram.addr + MIB);
	x->text = "does not answer";
	assert_true(eventually(has_said, x, WAIT_MS));
	x->error = -ETIMEDOUT;
	assert_true(eventually(has_failed, x, WAIT_MS));
	assert_int_equal(atomic_load(&w.signal), -1);
	kill(x->s.pid, SIGCONT);
	waiter_join(&w);
	assert_int_equal(w.signal, 0);
	assert_pages(&all, 0, length / PAGE, x->ram.addr);
	scene_end(x);
}

/* Nobody waits for the time-outs of a server when a region ends. */
static void ends_while_it_is_silent(void **state)
{
	const uint64_t length = 32 * MIB;
	struct scene *x;

	(void)state;
	x = scene_make(length, file, (struct hgm_source_nbd_opts){ .timeout_ms = 600000 },
		       (struct hgm_opts){ .fault_threads = 1 }, HGM_REGION_NO_FILL);
	server_stop(&x->s);
	assert_ok(hgm_region_prefetch(x->ram.region, 0, length));
	watch("the end of a region whose server is silent", 60);
	ram_end(&x->ram);
	hgm_destroy(x->h);
	hgm_source_destroy(x->src);
	calm();
	server_end(&x->s);
	free(x);
}

static void fails_now_and_then(void **state)
{
	static const char *const args[] = { "-r",      "--filter=error",  "file",
					    "{image}", "error-pread=EIO", "error-pread-rate=20%",
					    NULL };
	const uint64_t length = 16 * MIB;
	struct plan plan = { .contents = &all, .pages = length / PAGE };
	struct touchers t;
	struct scene *x;

	(void)state;
	x = scene_make(length, args, (struct hgm_source_nbd_opts){ .size = 0 },
		       (struct hgm_opts){ .retry_first_us = 100 }, 0);
	plan.addr = x->ram.addr;
	touchers_start(&t, 8, &plan);
	touchers_join(&t);
	assert_ok(hgm_wait(x->h, WAIT_MS));
	assert_pages(&all, 0, length / PAGE, x->ram.addr);
	assert_true(stats_of(x->h).source_errors > 0);
	assert_int_equal(progress_of(x->h).poisoned_bytes, 0);
	scene_end(x);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(killed_again_and_again), cmocka_unit_test(comes_back_with_another_size),
	cmocka_unit_test(falls_silent),		  cmocka_unit_test(ends_while_it_is_silent),
	cmocka_unit_test(fails_now_and_then),
};

TEST_MAIN_UNLESS(tests, NULL, server_lacking())
