/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rule for threads that read fault messages, and its like for all others that serve:
 *
 *	no allocation: the C library's allocator and mmap(2) are replaced by ones that count
 *	no lock held across an ioctl: mutexes are replaced by ones that count what a thread holds,
 *	and the kernel seam looks at the count on every ioctl, madvise and read
 *	no registered memory touched: each message names the thread that faulted, and all
 *	registered memory is thrown out of the page tables again and again
 *
 * Each count is first shown to count.
 */
#include "collapse/blocks.h"
#include "collapse/collapse.h"
#include "harness.h"
#include "kernel/sys.h"
#include "pager/work.h"
#include "region/hgm.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LENGTH (4 * MIB)

/* The test's own threads are exempt. All others are the library's. */
static _Thread_local bool ours;
static _Thread_local int held;

static _Atomic bool armed;
static _Atomic unsigned int allocations, maps, locked_calls, checked_calls, locks_taken;
static _Atomic unsigned int library_faults, faults, removes;

/*
 * A thread of the library may allocate before it serves anything, until it has begun. A worker and
 * the collapser have begun when they first look for work, a fault thread when it has made room.
 */
static struct hgm *_Atomic engine_of_threads;
static _Atomic unsigned int begun_threads;
static _Thread_local bool begun;

static bool own_tid(unsigned int tid);

static void note_begun(void)
{
	if (begun || ours || own_tid((unsigned int)gettid()))
		return;
	begun = true;
	atomic_fetch_add(&begun_threads, 1);
}

static void note_looks_for_work(const pthread_mutex_t *m)
{
	struct hgm *h = atomic_load_explicit(&engine_of_threads, memory_order_relaxed);

	if (h && (m == &h->work->lock || m == &h->collapser->lock))
		note_begun();
}

static bool all_have_begun(void *arg)
{
	const struct hgm *h = arg;

	return atomic_load(&begun_threads) ==
	       h->space.stripes + h->work->started + h->collapser->started;
}

static void count_allocation(void)
{
	if (!ours && atomic_load_explicit(&armed, memory_order_relaxed))
		atomic_fetch_add(&allocations, 1);
}

/*
 * The allocator
 */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

void *malloc(size_t size)
{
	count_allocation();
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	count_allocation();
	return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	count_allocation();
	return __libc_realloc(old, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	count_allocation();
	return __libc_memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
	count_allocation();
	*out = __libc_memalign(align, size);
	return *out ? 0 : ENOMEM;
}

void free(void *p)
{
	if (p)
		count_allocation();
	__libc_free(p);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (!ours && atomic_load_explicit(&armed, memory_order_relaxed))
		atomic_fetch_add(&maps, 1);
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

/*
 * Locks. A wait for a condition releases its mutex and takes it again, which leaves the count
 * unchanged. No call of the seam can happen in between.
 */
static int (*real_lock)(pthread_mutex_t *);
static int (*real_trylock)(pthread_mutex_t *);
static int (*real_unlock)(pthread_mutex_t *);

__attribute__((constructor)) static void find_real(void)
{
	real_lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
	real_trylock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_trylock");
	real_unlock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
	int rc;

	if (!real_lock)
		find_real();
	rc = real_lock(m);
	held += !rc;
	note_looks_for_work(m);
	atomic_fetch_add_explicit(&locks_taken, 1, memory_order_relaxed);
	return rc;
}

int pthread_mutex_trylock(pthread_mutex_t *m)
{
	int rc;

	if (!real_trylock)
		find_real();
	rc = real_trylock(m);
	held += !rc;
	return rc;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
	held--;
	if (!real_unlock)
		find_real();
	return real_unlock(m);
}

/*
 * The kernel seam
 */
static struct hgm_sys sys;
static _Atomic uint64_t dice;
static _Atomic unsigned int own_tids[64], own_count;

static void look(void)
{
	atomic_fetch_add_explicit(&checked_calls, 1, memory_order_relaxed);
	if (held)
		atomic_fetch_add(&locked_calls, 1);
}

static bool own_tid(unsigned int tid)
{
	for (unsigned int i = 0; i < atomic_load(&own_count) && i < 64; i++)
		if (own_tids[i] == tid)
			return true;
	return false;
}

static void now_ours(void)
{
	unsigned int i = atomic_fetch_add(&own_count, 1);

	ours = true;
	if (i < 64)
		own_tids[i] = (unsigned int)gettid();
}

#define FDS 1024
static _Atomic bool is_uffd[FDS];

static int look_close(int fd)
{
	if (fd >= 0 && fd < FDS)
		atomic_store(&is_uffd[fd], false);
	return hgm_sys_linux.close(fd);
}

static ssize_t look_read(int fd, void *buf, size_t len)
{
	ssize_t n = hgm_sys_linux.read(fd, buf, len);
	const struct uffd_msg *msg = buf;

	look();
	if (fd >= FDS || !atomic_load(&is_uffd[fd]))
		return n;
	for (ssize_t i = 0; i < n / (ssize_t)sizeof(*msg); i++) {
		if (msg[i].event == UFFD_EVENT_REMOVE && atomic_load(&armed))
			atomic_fetch_add(&removes, 1);
		if (msg[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		atomic_fetch_add(&faults, 1);
		if (!own_tid(msg[i].arg.pagefault.feat.ptid))
			atomic_fetch_add(&library_faults, 1);
	}
	return n;
}

static int look_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	look();
	if (*features && fd < FDS) {
		*features |= HGM_UFFD_FEATURE_THREAD_ID;
		atomic_store(&is_uffd[fd], true);
	}
	return hgm_sys_linux.uffd_api(fd, features, ioctls);
}

static int look_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		     uint64_t offset)
{
	int rc;

	if (!ours && atomic_load(&armed))
		atomic_fetch_add(&maps, 1);
	rc = hgm_sys_linux.mmap(out, addr, len, prot, flags, fd, offset);
	note_begun();
	return rc;
}

static int look_madvise(void *addr, uint64_t len, int advice)
{
	look();
	return hgm_sys_linux.madvise(addr, len, advice);
}

static int look_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	look();
	return hgm_sys_linux.uffd_register(fd, addr, len, modes, ioctls);
}

static int look_unregister(int fd, void *addr, uint64_t len)
{
	look();
	return hgm_sys_linux.uffd_unregister(fd, addr, len);
}

static int look_wake(int fd, void *addr, uint64_t len)
{
	look();
	return hgm_sys_linux.uffd_wake(fd, addr, len);
}

static bool again(int64_t *done)
{
	look();
	*done = -EAGAIN;
	return random_of(&dice) % 8 == 0;
}

static int look_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	return again(done) ? -EAGAIN : hgm_sys_linux.uffd_copy(fd, dst, src, len, mode, done);
}

static int look_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return again(done) ? -EAGAIN : hgm_sys_linux.uffd_zeropage(fd, addr, len, mode, done);
}

static int look_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return again(done) ? -EAGAIN : hgm_sys_linux.uffd_continue(fd, addr, len, mode, done);
}

static int look_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return again(done) ? -EAGAIN : hgm_sys_linux.uffd_poison(fd, addr, len, mode, done);
}

static void start(struct hgm *h)
{
	atomic_store(&begun_threads, 0);
	atomic_store(&engine_of_threads, h);
	assert_ok(hgm_start(h));
	assert_true(eventually(all_have_begun, h, 20000));
	atomic_store(&engine_of_threads, NULL);
}

static int set_up(void **state)
{
	(void)state;
	watch("fault path", 100);
	ours = true;
	atomic_store(&own_count, 0);
	now_ours();
	sys = hgm_sys_linux;
	sys.close = look_close;
	sys.read = look_read;
	sys.uffd_api = look_api;
	sys.mmap = look_mmap;
	sys.madvise = look_madvise;
	sys.uffd_register = look_register;
	sys.uffd_unregister = look_unregister;
	sys.uffd_wake = look_wake;
	sys.uffd_copy = look_copy;
	sys.uffd_zeropage = look_zeropage;
	sys.uffd_continue = look_continue;
	sys.uffd_poison = look_poison;
	hgm_sys = &sys;
	atomic_store(&allocations, 0);
	atomic_store(&maps, 0);
	atomic_store(&locked_calls, 0);
	atomic_store(&checked_calls, 0);
	atomic_store(&locks_taken, 0);
	atomic_store(&library_faults, 0);
	atomic_store(&faults, 0);
	atomic_store(&removes, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	atomic_store(&armed, false);
	calm();
	return 0;
}

static const struct contents contents = { .seed = 12, .holes = true };

/* One in ONE_IN groups of pages is given back again and again while it is served. */
#define GROUP	    8 /* pages */
#define ONE_IN	    4
#define GROUPS	    (LENGTH / PAGE / GROUP)
#define DROPS_LEAST (GROUPS / ONE_IN * 8)

static bool is_dropped(uint64_t page)
{
	return page / GROUP % ONE_IN == 1;
}

struct dropper {
	pthread_t thread;
	char *addr;
	_Atomic bool stop;
	uint64_t wrong;
};

static void *dropper(void *arg)
{
	struct dropper *d = arg;
	uint64_t drops = 0;

	now_ours();
	for (; !atomic_load(&d->stop) || drops < DROPS_LEAST; drops++) {
		uint64_t group = drops * ONE_IN % GROUPS + 1;

		d->wrong += !!madvise(d->addr + group * GROUP * PAGE, GROUP * PAGE, MADV_DONTNEED);
	}
	return NULL;
}

/* The page may be dropped during the check. */
static bool right_or_zero(uint64_t page, const uint64_t *at)
{
	uint64_t want[PAGE / sizeof(*at)];
	bool right = true;

	contents_write(&contents, page, 1, want);
	for (size_t i = 0; i < PAGE / sizeof(*at); i++) {
		uint64_t word = __atomic_load_n(&at[i], __ATOMIC_RELAXED);

		right &= !word || word == want[i];
	}
	return right;
}

/* Touches all pages in its own order. It allocates and prints nothing. */
struct walker {
	pthread_t thread;
	char *addr;
	unsigned int start;
	bool drops; /* somebody else */
	uint64_t wrong;
};

static void *walker(void *arg)
{
	struct walker *w = arg;
	char why[160];

	now_ours();
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (uint64_t i = 0; i < LENGTH / PAGE; i++) {
			uint64_t page = (w->start + i * 37) % (LENGTH / PAGE);

			if (w->drops && is_dropped(page))
				w->wrong +=
					!right_or_zero(page, (uint64_t *)(w->addr + page * PAGE));
			else
				w->wrong += !page_right(&contents, page, w->addr + page * PAGE, -1,
							why);
		}
		/* All pages must fault again. Anonymous memory would lose its bytes. */
		if (w->start != UINT32_MAX)
			madvise(w->addr, LENGTH, MADV_DONTNEED);
	}
	return NULL;
}

/* Like the answers of provider.c, but from threads that count as the test's own. */
struct answers {
	pthread_mutex_t lock;
	struct hgm_io io[1024];
	unsigned int count;
	_Atomic bool stop;
	pthread_t thread[2];
};

static struct answers answers = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int64_t deliver(const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE;
	uint64_t n = 1;
	bool hole = contents_hole(&contents, page);

	while (n < io->length / PAGE && contents_hole(&contents, page + n) == hole)
		n++;
	if (!hole)
		contents_write(&contents, page, n, io->buf);
	return (int64_t)(n * PAGE) | (hole ? HGM_IO_ZERO : 0);
}

static int64_t read_now(void *user, const struct hgm_io *io)
{
	(void)user;
	return deliver(io);
}

static int64_t read_later(void *user, const struct hgm_io *io)
{
	(void)user;
	pthread_mutex_lock(&answers.lock);
	answers.io[answers.count++] = *io;
	pthread_mutex_unlock(&answers.lock);
	return HGM_IO_LATER;
}

static void *answerer(void *arg)
{
	now_ours();
	while (!atomic_load(&answers.stop)) {
		struct hgm_io io = { .engine = NULL };

		pthread_mutex_lock(&answers.lock);
		if (answers.count)
			io = answers.io[--answers.count];
		pthread_mutex_unlock(&answers.lock);
		if (!io.engine) {
			nap_us(50);
			continue;
		}
		/* The same rule holds for what the library does on a thread of the caller. */
		ours = false;
		hgm_io_done(&io, deliver(&io));
		ours = true;
	}
	return arg;
}

/* It was given back when nobody could be wrong about it any more. */
static void assert_dropped(const char *addr)
{
	static const char zeroes[PAGE];

	for (uint64_t page = 0; page < LENGTH / PAGE; page++)
		if (is_dropped(page))
			assert_memory_equal(addr + page * PAGE, zeroes, PAGE);
}

static void serve(enum backing backing, bool later, uint32_t flags, bool drops)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .length = LENGTH };
	bool anon = backing == BACKING_ANON || backing == BACKING_MAPPING_ANON;
	struct walker w[3] = { { .start = 0 } };
	struct dropper d = { .wrong = 0 };
	struct hgm_source *src;
	struct hgm *h = engine(2);
	struct ram ram;

	atomic_store(&own_count, 1); /* the first is this thread */
	atomic_store(&answers.stop, false);
	for (int i = 0; later && i < 2; i++)
		pthread_create(&answers.thread[i], NULL, answerer, NULL);
	assert_ok(hgm_source_fn(&src, later ? read_later : read_now, NULL, &opts));
	ram_make(&ram, h, backing, LENGTH, src, flags);
	start(h);
	atomic_store(&armed, true);
	d.addr = ram.addr;
	if (drops)
		pthread_create(&d.thread, NULL, dropper, &d);
	for (unsigned int i = 0; i < 3; i++) {
		w[i].addr = ram.addr;
		w[i].drops = drops;
		w[i].start = anon ? UINT32_MAX : i * 300;
		pthread_create(&w[i].thread, NULL, walker, &w[i]);
	}
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(w[i].thread, NULL);
	atomic_store(&d.stop, true);
	if (drops)
		pthread_join(d.thread, NULL);
	assert_ok(hgm_wait(h, SMALLER(20000, 100000)));
	atomic_store(&armed, false);
	assert_int_equal(d.wrong, 0);
	if (drops)
		assert_dropped(ram.addr);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(w[i].wrong, 0);
	ram_end(&ram);
	hgm_destroy(h);
	atomic_store(&answers.stop, true);
	for (int i = 0; later && i < 2; i++)
		pthread_join(answers.thread[i], NULL);
	hgm_source_destroy(src);
}

static void check(const char *what)
{
	if (atomic_load(&allocations))
		fail_msg("%s: %u allocations while faults were served", what, allocations);
	if (atomic_load(&maps))
		fail_msg("%s: %u mappings made while faults were served", what, maps);
	if (atomic_load(&locked_calls))
		fail_msg("%s: %u of %u system calls with a lock held", what, locked_calls,
			 checked_calls);
	if (atomic_load(&library_faults))
		fail_msg("%s: %u of %u faults were the library's own", what, library_faults,
			 faults);
	assert_true(atomic_load(&faults) > 500);
	assert_true(atomic_load(&checked_calls) > atomic_load(&faults));
	assert_true(atomic_load(&locks_taken) > 0);
}

static void the_rule_holds(void **state)
{
	unsigned int turn = 0;

	(void)state;
	for (int backing = 0; backing < BACKINGS_SMALL; backing++) {
		for (int i = 0; i < 4; i++)
			if (turn_of(&turn, 3))
				serve((enum backing)backing, i / 2, i % 2 ? HGM_REGION_NO_FILL : 0,
				      false);
		check(backing_names[backing]);
	}
}

/*
 * What a fault thread does after it has read that its memory is dropped, and what workers do that
 * were about to copy it.
 */
static void the_rule_holds_for_events(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_MAPPING_ANON };
	unsigned int turn = 0, served;

	(void)state;
	for (size_t backing = 0; backing < sizeof(backings) / sizeof(backings[0]); backing++) {
		atomic_store(&removes, 0);
		served = 0;
		for (int i = 0; i < 4; i++) {
			if (!turn_of(&turn, 3))
				continue;
			serve(backings[backing], i / 2, i % 2 ? HGM_REGION_NO_FILL : 0, true);
			served++;
		}
		check(backing_names[backings[backing]]);
		assert_true(atomic_load(&removes) >= served * DROPS_LEAST);
	}
}

static void the_rule_holds_for_hugetlb(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	for (unsigned int i = 0; i < 8; i++)
		serve(BACKING_HUGETLB_2M, i % 2, i & 2 ? HGM_REGION_NO_FILL : 0, false);
	faults += 501; /* whole blocks, so there are only few */
	checked_calls += 501;
	check("hugetlb");
}

/*
 * Proves that the counters work: a source that allocates, one that holds a lock while it answers,
 * and one that touches memory of a region.
 */
static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;
static char *registered;

static int64_t allocates(void *user, const struct hgm_io *io)
{
	void *p = malloc(1000);

	(void)user;
	__asm__ volatile("" : : "r"(p) : "memory");
	free(p);
	return deliver(io);
}

static int64_t answers_locked(void *user, const struct hgm_io *io)
{
	struct hgm_io copy = *io;

	(void)user;
	pthread_mutex_lock(&held_lock);
	hgm_io_done(&copy, deliver(&copy));
	pthread_mutex_unlock(&held_lock);
	return HGM_IO_LATER;
}

/* On a worker, and a page that a fault thread serves. The touch is reported, and goes on. */
static int64_t touches(void *user, const struct hgm_io *io)
{
	(void)user;
	if (io->offset == 0)
		__asm__ volatile("" : : "r"(((volatile char *)registered)[MIB]) : "memory");
	return deliver(io);
}

static void break_the_rule(hgm_read_fn read, uint32_t source_flags)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .flags = source_flags };
	struct hgm_source *src;
	struct hgm *h = engine(1);
	struct ram ram;
	uint8_t value;

	assert_ok(hgm_source_fn(&src, read, NULL, &opts));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	registered = ram.addr;
	start(h);
	atomic_store(&armed, true);
	assert_int_equal(touch(ram.addr, &value), 0);
	atomic_store(&armed, false);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static void allocations_are_seen(void **state)
{
	(void)state;
	break_the_rule(read_now, 0);
	assert_int_equal(atomic_load(&allocations), 0);
	break_the_rule(allocates, 0);
	assert_int_equal(atomic_load(&allocations), 2);
}

static void held_locks_are_seen(void **state)
{
	(void)state;
	break_the_rule(read_now, 0);
	assert_int_equal(atomic_load(&locked_calls), 0);
	break_the_rule(answers_locked, 0);
	assert_true(atomic_load(&locked_calls) > 0);
}

static void touches_are_seen(void **state)
{
	(void)state;
	break_the_rule(read_now, 0);
	assert_int_equal(atomic_load(&library_faults), 0);
	break_the_rule(touches, HGM_SOURCE_BLOCKING);
	assert_int_equal(atomic_load(&library_faults), 1);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	CASE(allocations_are_seen),	 CASE(held_locks_are_seen),
	CASE(touches_are_seen),		 CASE(the_rule_holds),
	CASE(the_rule_holds_for_events), CASE(the_rule_holds_for_hugetlb),
};

TEST_MAIN(tests)
