/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The order of bits, the wait for SRCU sections, and protection. A fault thread is held back at the
 * worst moment, and the wp owner must wait for it. It is held back inside the kernel's calls.
 */
#include "harness.h"
#include "kernel/sys.h"
#include "util/bits.h"

#include <errno.h>
#include <sys/mman.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(2 * MIB)
#define PAGES	(LENGTH / PAGE)
#define P	100 /* the page under test */
#define P_AT	(P * PAGE)
#define HELD_US 100000

static const struct contents contents = { .seed = 107 };
static const struct hgm_sys *kernel;
static struct hgm_sys sys;

static struct {
	_Atomic(char *) page; /* NULL: no thread is held back */
	_Atomic bool installing, unprotecting, protected;
	_Atomic bool in, out; /* a thread is held back; it has gone on */
	/*
	 * Starts at the registration. By then the wp owner has waited for other threads once, but
	 * not yet for those that must see the bits.
	 */
	_Atomic(struct waiter *) from_registration;
} held;

static void hold(const _Atomic bool *backing, const char *addr, uint64_t len)
{
	char *page = atomic_load(&held.page);

	if (!page || !atomic_load(backing) || addr > page || addr + len <= page ||
	    atomic_exchange(&held.in, true))
		return;
	nap_us(HELD_US);
}

static int odd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc;

	hold(&held.installing, addr, len);
	rc = kernel->uffd_continue(fd, addr, len, mode, done);
	if (atomic_load(&held.in))
		atomic_store(&held.out, true);
	return rc;
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc;

	hold(&held.installing, dst, len);
	rc = kernel->uffd_copy(fd, dst, src, len, mode, done);
	if (atomic_load(&held.in))
		atomic_store(&held.out, true);
	return rc;
}

static bool is_true(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

static int odd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	int rc = kernel->uffd_register(fd, addr, len, modes, ioctls);
	struct waiter *w =
		modes & HGM_UFFD_WP ? atomic_exchange(&held.from_registration, NULL) : NULL;

	if (w) {
		waiter_start(w, atomic_load(&held.page));
		eventually(is_true, &held.in, 5000);
	}
	return rc;
}

static int odd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	char *page = atomic_load(&held.page);
	int rc;

	if (!(mode & HGM_UFFD_WP_PROTECT))
		hold(&held.unprotecting, addr, len);
	rc = kernel->uffd_writeprotect(fd, addr, len, mode);
	if (!(mode & HGM_UFFD_WP_PROTECT) && atomic_load(&held.in))
		atomic_store(&held.out, true);
	/* The kernel unmaps the page right afterwards, and a thread reads it. */
	if (mode & HGM_UFFD_WP_PROTECT && page && atomic_exchange(&held.protected, false)) {
		madvise(page, PAGE, MADV_DONTNEED);
		*(volatile char *)page;
	}
	return rc;
}

struct scene {
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	_Atomic unsigned int asked;
	_Atomic bool inside; /* a thread is in the callback */
};

static void begin(struct scene *s, enum backing backing, bool complete)
{
	memset(s, 0, sizeof(*s));
	memset(&held, 0, sizeof(held));
	watch(backing_names[backing], 60);
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_continue = odd_continue;
	sys.uffd_copy = odd_copy;
	sys.uffd_register = odd_register;
	sys.uffd_writeprotect = odd_writeprotect;
	hgm_sys = &sys;
	s->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	s->h = engine(2);
	ram_make(&s->ram, s->h, backing, LENGTH, provider_source(s->provider),
		 HGM_REGION_NO_COLLAPSE | (complete ? 0 : HGM_REGION_NO_FILL));
	assert_ok(hgm_start(s->h));
	if (complete)
		assert_ok(hgm_wait(s->h, WAIT_MS));
}

static void end(struct scene *s)
{
	atomic_store(&held.page, NULL);
	ram_end(&s->ram);
	hgm_destroy(s->h);
	provider_free(s->provider);
	hgm_sys = kernel;
	calm();
}

static enum hgm_write_verdict count(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct scene *s = user;

	(void)r;
	(void)what;
	atomic_fetch_add(&s->asked, 1);
	return HGM_WRITE_ALLOW;
}

static void hold_at(struct scene *s, _Atomic bool *backing)
{
	atomic_store(&held.page, s->ram.addr + P_AT);
	atomic_store(backing, true);
}

static void poke(const struct scene *s)
{
	*(volatile char *)(s->ram.addr + P_AT) += 1;
}

static void *write_once(void *arg)
{
	poke(arg);
	return NULL;
}

static void watch_it(struct scene *s)
{
	assert_ok(hgm_region_watch(s->ram.region,
				   &(struct hgm_watch_opts){ .size = sizeof(struct hgm_watch_opts),
							     .write = count,
							     .user = s }));
}

static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };
#define EACH_BACKING (sizeof(backings) / sizeof(backings[0]))

/* The thread that was held back has gone on. The callback is still called for a write. */
static void ends_asked(struct scene *s, struct waiter *reader, enum backing backing)
{
	waiter_join(reader);
	assert_true(eventually(is_true, &held.out, 5000));
	/* Before 6.4 the callback may be called for the reader, too. */
	poke(s);
	if (!atomic_load(&s->asked))
		fail_msg("%s: written unasked", backing_names[backing]);
	end(s);
}

/*
 * A thread installs the page unprotected, because it was not write-protected when the thread
 * looked.
 */
static void installed_meanwhile(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct waiter reader;
		struct scene s;

		begin(&s, backings[i], false);
		watch_it(&s);
		hold_at(&s, &held.installing);
		atomic_store(&held.from_registration, &reader);
		assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
		assert_true(atomic_load(&held.in));
		ends_asked(&s, &reader, backings[i]);
	}
}

/*
 * The same, but the thread began before the region had a wp owner. It is in no SRCU section that is
 * counted.
 */
static void installed_since_before_the_watch(void **state)
{
	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct waiter reader;
		struct scene s;

		begin(&s, backings[i], false);
		hold_at(&s, &held.installing);
		waiter_start(&reader, s.ram.addr + P_AT);
		assert_true(eventually(is_true, &held.in, 5000));
		watch_it(&s);
		assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
		ends_asked(&s, &reader, backings[i]);
	}
}

/* The kernel unmaps a page right after it has been protected. */
static void unmapped_right_afterwards(void **state)
{
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, true);
	watch_it(&s);
	hold_at(&s, &held.protected);
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	assert_false(atomic_load(&held.protected));
	poke(&s);
	assert_true(atomic_load(&s.asked) > 0);
	end(&s);
}

static bool is_dirty(struct hgm_dirty *d)
{
	uint64_t bitmap[PAGES / 64];

	assert_ok(hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	return bitmap[P / 64] >> P % 64 & 1;
}

/*
 * A write is being let through. The page is no longer marked as write-protected, but the kernel
 * still protects it.
 */
static void collected_while_let_go(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o), .flags = HGM_DIRTY_SYNC };

	(void)state;
	for (size_t i = 0; i < EACH_BACKING; i++) {
		struct hgm_dirty *d;
		pthread_t writer;
		struct scene s;

		begin(&s, backings[i], true);
		assert_ok(hgm_dirty_start(&d, s.ram.region, &o));
		hold_at(&s, &held.unprotecting);
		pthread_create(&writer, NULL, write_once, &s);
		assert_true(eventually(is_true, &held.in, 5000));
		assert_true(is_dirty(d));
		pthread_join(writer, NULL);
		assert_true(eventually(is_true, &held.out, 5000));
		is_dirty(d);
		poke(&s);
		if (!is_dirty(d))
			fail_msg("%s: a write is lost", backing_names[backings[i]]);
		hgm_dirty_stop(d);
		end(&s);
	}
}

/* A page is present already when tracking with arrivals begins, and is mapped at that moment. */
static void started_while_installed(void **state)
{
	struct hgm_dirty_opts o = { .size = sizeof(o),
				    .flags = HGM_DIRTY_SYNC | HGM_DIRTY_ARRIVALS };
	struct waiter reader;
	struct hgm_dirty *d;
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, false);
	hold_at(&s, &held.installing);
	atomic_store(&held.from_registration, &reader);
	assert_ok(hgm_dirty_start(&d, s.ram.region, &o));
	assert_true(atomic_load(&held.in));
	waiter_join(&reader);
	assert_true(eventually(is_true, &held.out, 5000));
	is_dirty(d);
	poke(&s);
	assert_true(is_dirty(d));
	hgm_dirty_stop(d);
	end(&s);
}

static enum hgm_write_verdict linger(void *user, struct hgm_region *r, const struct hgm_span *what)
{
	struct scene *s = user;

	(void)r;
	(void)what;
	atomic_store(&s->inside, true);
	nap_us(HELD_US);
	atomic_store(&s->inside, false);
	return HGM_WRITE_ALLOW;
}

/* A caller that ends a watch may free what the callback uses. */
static void not_called_afterwards(void **state)
{
	struct hgm_watch_opts o = { .size = sizeof(o), .write = linger };
	pthread_t writer;
	struct scene s;

	(void)state;
	begin(&s, BACKING_SHMEM, true);
	o.user = &s;
	assert_ok(hgm_region_watch(s.ram.region, &o));
	assert_ok(hgm_region_protect(s.ram.region, 0, LENGTH, 0, NULL));
	pthread_create(&writer, NULL, write_once, &s);
	assert_true(eventually(is_true, &s.inside, 5000));
	assert_ok(hgm_region_unwatch(s.ram.region));
	assert_false(atomic_load(&s.inside));
	pthread_join(writer, NULL);
	end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(installed_meanwhile),
	cmocka_unit_test(installed_since_before_the_watch),
	cmocka_unit_test(unmapped_right_afterwards),
	cmocka_unit_test(collected_while_let_go),
	cmocka_unit_test(started_while_installed),
	cmocka_unit_test(not_called_afterwards),
};

TEST_MAIN(tests)
