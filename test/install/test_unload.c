/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library as a plugin brings it: opened by dlopen(3), used and closed again, by threads that
 * come and go, and by one that goes on after its library was closed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <hgm/hgm.h>

#include "../test.h"

#define LENGTH (UINT64_C(512) * 4096)
#define ROUNDS 8

static unsigned char contents[LENGTH];

/* What a plugin looks up. */
struct library {
	void *handle;
	__typeof__(hgm_create) *create;
	__typeof__(hgm_destroy) *destroy;
	__typeof__(hgm_start) *start;
	__typeof__(hgm_wait) *wait;
	__typeof__(hgm_errmsg) *errmsg;
	__typeof__(hgm_source_memory) *source_memory;
	__typeof__(hgm_source_destroy) *source_destroy;
	__typeof__(hgm_region_create) *region_create;
	__typeof__(hgm_region_addr) *region_addr;
};

#define LOOK_UP(l, name) ((l)->name = (__typeof__((l)->name))dlsym((l)->handle, "hgm_" #name))

static bool open_library(struct library *l)
{
	l->handle = dlopen(LIBHGM_SO, RTLD_NOW | RTLD_LOCAL);
	return l->handle && LOOK_UP(l, create) && LOOK_UP(l, destroy) && LOOK_UP(l, start) &&
	       LOOK_UP(l, wait) && LOOK_UP(l, errmsg) && LOOK_UP(l, source_memory) &&
	       LOOK_UP(l, source_destroy) && LOOK_UP(l, region_create) && LOOK_UP(l, region_addr);
}

/* One engine from its creation to its end; what is wrong, or NULL. */
static const char *use(const struct library *l)
{
	struct hgm_opts opts = { .size = sizeof(opts), .flags = HGM_ALLOW_USER_MODE_ONLY };
	struct hgm_region_opts ro = { .size = sizeof(ro), .length = LENGTH };
	struct hgm_region *r;
	struct hgm *h;
	int rc;

	if (l->create(&h, &opts))
		return l->errmsg();
	rc = l->source_memory(&ro.source, contents, LENGTH);
	if (!rc)
		rc = l->region_create(&r, h, &ro);
	if (!rc)
		rc = l->start(h);
	if (!rc)
		rc = memcmp(l->region_addr(r), contents, LENGTH) ? -EBADMSG : l->wait(h, 60000);
	l->destroy(h);
	l->source_destroy(ro.source);
	return rc ? strerrordesc_np(-rc) : NULL;
}

static const char *open_and_use(struct library *l)
{
	return open_library(l) ? use(l) : "dlopen or dlsym failed";
}

static void *open_use_close(void *arg)
{
	struct library l;
	const char *wrong = open_and_use(&l);

	(void)arg;
	if (!wrong && dlclose(l.handle))
		wrong = "dlclose failed";
	return (void *)wrong;
}

static void a_thread_opens_uses_and_closes(void **state)
{
	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		pthread_t thread;
		void *wrong;

		assert_int_equal(pthread_create(&thread, NULL, open_use_close, NULL), 0);
		assert_int_equal(pthread_join(thread, &wrong), 0);
		if (wrong)
			fail_msg("round %d: %s", i, (const char *)wrong);
	}
}

struct meeting {
	pthread_barrier_t used;
	pthread_barrier_t closed;
	struct library library;
	const char *wrong;
};

static void *use_and_outlive(void *arg)
{
	struct meeting *m = arg;

	m->wrong = open_and_use(&m->library);
	pthread_barrier_wait(&m->used);
	pthread_barrier_wait(&m->closed);
	return NULL; /* what the library keeps for this thread ends only now */
}

static void a_thread_outlives_its_library(void **state)
{
	struct meeting m = { 0 };
	pthread_t thread;

	(void)state;
	pthread_barrier_init(&m.used, NULL, 2);
	pthread_barrier_init(&m.closed, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, use_and_outlive, &m), 0);
	pthread_barrier_wait(&m.used);
	assert_int_equal(dlclose(m.library.handle), 0);
	pthread_barrier_wait(&m.closed);
	assert_int_equal(pthread_join(thread, NULL), 0);
	if (m.wrong)
		fail_msg("%s", m.wrong);
}

/* liburcu's thread for callbacks runs for ever, by code that must not go from under it. */
static void it_stays_in_memory(void **state)
{
	struct library l;
	void *again;

	(void)state;
	assert_null(open_and_use(&l));
	assert_int_equal(dlclose(l.handle), 0);
	again = dlopen(LIBHGM_SO, RTLD_NOW | RTLD_NOLOAD);
	assert_non_null(again);
	dlclose(again);
}

static int fill(void **state)
{
	(void)state;
	for (size_t i = 0; i < LENGTH; i++)
		contents[i] = (unsigned char)(i / 4096 + i % 253);
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup(a_thread_opens_uses_and_closes, fill),
	cmocka_unit_test_setup(a_thread_outlives_its_library, fill),
	cmocka_unit_test_setup(it_stays_in_memory, fill),
};

TEST_MAIN(tests)
