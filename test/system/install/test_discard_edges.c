/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edge cases of discards: of pages that were given up, of huge pages that another process takes,
 * from threads that must not wait, and with senseless arguments. Also the signals that may end a
 * thread of the library.
 */
#include "discarding.h"

#include "snapshotting.h"
#include "kernel/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define BLOCK	512 /* pages */
#define BAD	100
#define BADS	3

static const struct contents contents = { .seed = 241 };

struct trial {
	enum backing backing;
	char what[100];
	struct ledger ledger;
	struct hgm *h;
	struct ram ram;
};

static bool begin(struct trial *t, enum backing backing, const char *how, uint32_t flags,
		  uint32_t retries)
{
	if (backing_lacking(backing, LENGTH))
		return false;
	memset(t, 0, sizeof(*t));
	t->backing = backing;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], how);
	watch(t->what, 60);
	ledger_make(&t->ledger, &contents, LENGTH);
	t->h = engine_with((struct hgm_opts){
		.fault_threads = 2,
		.retries = retries,
		.retry_first_us = 100,
		.outage_ms = HGM_OUTAGE_NEVER,
	});
	ram_make(&t->ram, t->h, backing, LENGTH, t->ledger.source, flags);
	return true;
}

static void end(struct trial *t)
{
	ram_end(&t->ram);
	hgm_destroy(t->h);
	ledger_free(&t->ledger);
	calm();
}

/* Discarding a page removes its poison. A page that was given up is then memory like any other. */
static void poisoned(enum backing backing, enum way way)
{
	bool whole = backing >= BACKINGS_SMALL;
	uint64_t first = whole ? 0 : BAD, pages = whole ? BLOCK : BADS;
	struct trial t = { 0 };
	uint8_t value;

	if (!begin(&t, backing, way_names[way], 0, 1))
		return;
	atomic_store(&t.ledger.bad_page, BAD);
	atomic_store(&t.ledger.bad_pages, BADS);
	assert_ok(hgm_start(t.h));
	for (uint64_t page = BAD; page < BAD + BADS; page++)
		assert_int_equal(touch(t.ram.addr + page * PAGE, &value), SIGBUS);
	discard_by(way, &t.ram, first * PAGE, pages * PAGE);
	assert_int_equal(touch(t.ram.addr + BAD * PAGE, &value), 0);
	assert_int_equal(value, 0);
	memset(t.ram.addr + (BAD + 1) * PAGE, 0x5a, PAGE);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_zeroes(t.ram.addr + first * PAGE, (BAD + 1 - first) * PAGE, t.what);
	assert_zeroes(t.ram.addr + (BAD + 2) * PAGE, (first + pages - BAD - 2) * PAGE, t.what);
	assert_int_equal(info_of(t.ram.region).poisoned_bytes, 0);
	assert_int_equal(info_of(t.ram.region).present_bytes, LENGTH);
	if (t.ram.addr[(BAD + 1) * PAGE + 7] != 0x5a)
		fail_msg("%s: the guest's write is lost", t.what);
	assert_pages(&contents, first + pages, PAGES - first - pages,
		     t.ram.addr + (first + pages) * PAGE);
	if (backing_can_be_huge(backing)) {
		memset(t.ram.addr + first * PAGE, 0x33, pages * PAGE);
		/*
		 * To the kernel zero pages of anonymous memory are holes, and no event reports when
		 * they go.
		 */
		assert_ok(hgm_region_collapse(t.ram.region));
		assert_huge(&t.ram, backing);
	}
	end(&t);
}

static void given_up_and_given_back(void **state)
{
	(void)state;
	skip_unless(KERNEL_POISON);
	for (enum backing backing = 0; backing < BACKINGS; backing++)
		if (backing != BACKING_HUGETLB_1G)
			poisoned(backing, WAY_CALL);
	poisoned(BACKING_ANON, WAY_DONTNEED);
	poisoned(BACKING_MAPPING_ANON, WAY_DONTNEED);
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

/* The source fails for pages that were discarded during the request. No thread needs them now. */
static void given_back_before_given_up(void **state)
{
	(void)state;
	for (enum backing backing = 0; backing < BACKINGS; backing++) {
		bool whole = backing >= BACKINGS_SMALL;
		struct waiter reader;
		struct trial t;

		if (backing == BACKING_HUGETLB_1G || !begin(&t, backing, "fails after the discard",
							    HGM_REGION_NO_FILL, HGM_RETRY_NEVER))
			continue;
		atomic_store(&t.ledger.keep, true);
		assert_ok(hgm_start(t.h));
		waiter_start(&reader, t.ram.addr + BAD * PAGE);
		while (!ledger_keeps(&t.ledger, BAD))
			nap_us(500);
		discard_by(WAY_CALL, &t.ram, whole ? 0 : BAD * PAGE, whole ? 2 * MIB : PAGE);
		atomic_store(&t.ledger.bad_page, BAD);
		atomic_store(&t.ledger.bad_pages, BADS);
		atomic_store(&t.ledger.keep, false);
		ledger_give(&t.ledger, LEDGER_REQUESTS);
		if (!eventually(is_back, &reader, 5000))
			fail_msg("%s: the reader is left asleep", t.what);
		waiter_join(&reader);
		assert_int_equal(reader.signal, 0);
		assert_int_equal(reader.value, 0);
		assert_zeroes(t.ram.addr + BAD * PAGE, PAGE, t.what);
		assert_int_equal(info_of(t.ram.region).poisoned_bytes, 0);
		end(&t);
	}
}

/* The test's own pool of three huge pages. */
struct pool {
	char path[40];
	int theirs;
	char *taken;
};

static const char *pool_make(struct pool *p)
{
	strcpy(p->path, "/tmp/hgm-pool-XXXXXX");
	p->taken = NULL;
	p->theirs = -1;
	if (backing_lacking(BACKING_FD_HUGETLB_2M, 6 * MIB))
		return backing_lacking(BACKING_FD_HUGETLB_2M, 6 * MIB);
	if (!mkdtemp(p->path))
		return "no directory can be made";
	if (mount("none", p->path, "hugetlbfs", 0, "pagesize=2M,size=6M")) {
		rmdir(p->path);
		return "hugetlbfs cannot be mounted";
	}
	return NULL;
}

static int pool_file(const struct pool *p, const char *name, uint64_t length)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", p->path, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	unlink(path);
	return fd;
}

/* Takes all pages that the pool has left. */
static void pool_empty(struct pool *p)
{
	p->theirs = pool_file(p, "theirs", 4 * MIB);
	p->taken = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, p->theirs,
			0);
	assert_ptr_not_equal(p->taken, MAP_FAILED);
}

static void pool_refill(struct pool *p)
{
	munmap(p->taken, 4 * MIB);
	close(p->theirs);
}

static void pool_free(struct pool *p)
{
	umount2(p->path, MNT_DETACH);
	rmdir(p->path);
}

static void pool_region(struct trial *t, struct pool *p, const char *how, uint32_t flags)
{
	struct hgm_region_opts o = {
		.size = sizeof(o), .length = LENGTH, .backing = HGM_BACKING_FD, .flags = flags
	};

	memset(t, 0, sizeof(*t));
	t->backing = BACKING_FD_HUGETLB_2M;
	snprintf(t->what, sizeof(t->what), "%s", how);
	watch(t->what, 60);
	ledger_make(&t->ledger, &contents, LENGTH);
	t->h = engine(2);
	o.source = t->ledger.source;
	o.fd = pool_file(p, "memory", LENGTH);
	t->ram = (struct ram){ .fd = o.fd, .length = LENGTH };
	assert_ok(hgm_region_create(&t->ram.region, t->h, &o));
	t->ram.addr = hgm_region_addr(t->ram.region);
	assert_ok(hgm_start(t->h));
}

/* A thread that touches a page while memory for it is lacking waits, and gets no SIGBUS. */
static void assert_served_later(struct trial *t, struct pool *p, uint64_t offset)
{
	struct waiter reader;

	waiter_start(&reader, t->ram.addr + offset);
	nap_us(50000);
	assert_int_equal(atomic_load(&reader.signal), -1);
	pool_refill(p);
	if (!eventually(is_back, &reader, 5000))
		fail_msg("%s: the reader is left asleep", t->what);
	waiter_join(&reader);
	assert_int_equal(reader.signal, 0);
	assert_int_equal(reader.value, 0);
	assert_int_equal(info_of(t->ram.region).poisoned_bytes, 0);
	assert_zeroes(t->ram.addr, 2 * MIB, t->what);
	memset(t->ram.addr, 0x5a, 2 * MIB);
	assert_pages(&contents, BLOCK, BLOCK, t->ram.addr + 2 * MIB);
	assert_int_equal(t->ram.addr[2 * MIB - 1], 0x5a);
}

static void the_pool_is_empty_for_a_moment(void **state)
{
	const char *lacking;
	struct pool p;
	struct trial t = { 0 };

	(void)state;
	lacking = pool_make(&p);
	if (lacking)
		test_skip("%s", lacking);
	for (enum way way = 0; way < WAYS; way++) {
		if (!way_drops(way, BACKING_FD_HUGETLB_2M))
			continue;
		pool_region(&t, &p, way_names[way], 0);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		discard_by(way, &t.ram, 0, 2 * MIB);
		pool_empty(&p);
		assert_served_later(&t, &p, 100 * PAGE);
		end(&t);
	}
	pool_free(&p);
}

static void *give_all(void *ledger)
{
	ledger_give(ledger, LEDGER_REQUESTS);
	return NULL;
}

/* The source answers for discarded pages whose memory another file has taken. */
static void the_answer_finds_no_memory(void **state)
{
	const char *lacking;
	struct pool p;
	struct trial t = { 0 };

	(void)state;
	lacking = pool_make(&p);
	if (lacking)
		test_skip("%s", lacking);
	for (enum way way = 0; way < WAYS; way++) {
		pthread_t giver;

		if (!way_drops(way, BACKING_FD_HUGETLB_2M))
			continue;
		pool_region(&t, &p, way_names[way], HGM_REGION_NO_FILL);
		atomic_store(&t.ledger.keep, true);
		assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
		while (!ledger_keeps(&t.ledger, 1))
			nap_us(500);
		discard_by(way, &t.ram, 0, 2 * MIB);
		pool_empty(&p);
		atomic_store(&t.ledger.keep, false);
		assert_int_equal(pthread_create(&giver, NULL, give_all, &t.ledger), 0);
		assert_served_later(&t, &p, 100 * PAGE);
		pthread_join(giver, NULL);
		assert_ok(hgm_wait(t.h, WAIT_MS));
		end(&t);
	}
	pool_free(&p);
}

/*
 * A kernel on which the memory of the first block is punched just before CONTINUE maps it. No event
 * reports that.
 */
#define PUNCHES 2

static const struct hgm_sys *kernel;

static struct {
	_Atomic(const struct ram *) ram; /* NULL: no punching */
	_Atomic unsigned int left;	 /* how often it will be dropped if it is there */
	_Atomic bool wrong;
} puncher;

static bool punch(const struct ram *ram)
{
	uint64_t before = held_bytes(ram, BACKING_FD_HUGETLB_2M);

	if (kernel->punch_hole(ram->fd, 0, BLOCK * PAGE))
		atomic_store(&puncher.wrong, true);
	return held_bytes(ram, BACKING_FD_HUGETLB_2M) < before;
}

static int punched_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	const struct ram *ram = atomic_load(&puncher.ram);

	if (ram && addr == ram->addr && atomic_load(&puncher.left) && punch(ram))
		atomic_fetch_sub(&puncher.left, 1);
	return kernel->uffd_continue(fd, addr, len, mode, done);
}

/* How the block that is dropped meanwhile is mapped. */
enum mapped {
	MAPPED_FOR_A_WAITER,
	MAPPED_BY_FILL,
	MAPPED_WHEN_DISCARDED,
	MAPPEDS,
};

static bool dropped_again(enum mapped mapped)
{
	static const char *const names[] = { "for a waiter", "by fill", "when it was discarded" };
	struct waiter waiter;
	struct trial t;

	if (!begin(&t, BACKING_FD_HUGETLB_2M, names[mapped],
		   mapped == MAPPED_BY_FILL ? 0 : HGM_REGION_NO_FILL, HGM_RETRY_NEVER))
		return false;
	atomic_store(&puncher.left, PUNCHES);
	if (mapped != MAPPED_WHEN_DISCARDED)
		atomic_store(&puncher.ram, &t.ram);
	assert_ok(hgm_start(t.h));
	if (mapped == MAPPED_WHEN_DISCARDED)
		assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	if (mapped != MAPPED_FOR_A_WAITER)
		assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_int_equal(atomic_load(&puncher.left), PUNCHES - (mapped == MAPPED_BY_FILL));
	if (mapped == MAPPED_WHEN_DISCARDED) {
		assert_true(punch(&t.ram));
		atomic_store(&puncher.ram, &t.ram);
	}
	waiter_start(&waiter, t.ram.addr + 100 * PAGE);
	if (!eventually(is_back, &waiter, 5000))
		fail_msg("%s: the reader is left asleep", t.what);
	waiter_join(&waiter);
	if (waiter.signal || waiter.value)
		fail_msg("%s: signal %d, byte %#x", t.what, waiter.signal, waiter.value);
	if (atomic_load(&puncher.left))
		fail_msg("%s: was dropped %u times too few", t.what, atomic_load(&puncher.left));
	atomic_store(&puncher.ram, NULL);
	assert_false(atomic_load(&puncher.wrong));
	assert_zeroes(t.ram.addr, BLOCK * PAGE, t.what);
	memset(t.ram.addr, 0x5a, BLOCK * PAGE);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_int_equal(t.ram.addr[BLOCK * PAGE - 1], 0x5a);
	assert_pages(&contents, BLOCK, PAGES - BLOCK, t.ram.addr + BLOCK * PAGE);
	assert_int_equal(stats_of(t.h).poisoned_pages, 0);
	assert_int_equal(info_of(t.ram.region).poisoned_bytes, 0);
	assert_int_equal(progress_of(t.h).last_error, 0);
	end(&t);
	return true;
}

static void dropped_again_before_it_is_mapped(void **state)
{
	static struct hgm_sys sys;
	bool done = true;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_continue = punched_continue;
	hgm_sys = &sys;
	for (enum mapped mapped = 0; mapped < MAPPEDS && done; mapped++)
		done = dropped_again(mapped);
	hgm_sys = kernel;
	if (!done)
		test_skip("%s", backing_lacking(BACKING_FD_HUGETLB_2M, LENGTH));
}

static void arguments_are_looked_at(void **state)
{
	struct trial t = { 0 };

	(void)state;
	assert_error(hgm_region_discard(NULL, 0, PAGE), -EINVAL);
	assert_error(hgm_region_before_write(NULL, 0, PAGE), -EINVAL);
	assert_true(begin(&t, BACKING_SHMEM, "arguments", 0, 1));
	for (unsigned int i = 0; i < 2; i++) {
		int (*call)(struct hgm_region *, uint64_t, uint64_t) =
			i ? hgm_region_before_write : hgm_region_discard;
		struct hgm_region *r = t.ram.region;

		assert_error(call(r, 1, PAGE), -EINVAL);
		assert_error(call(r, 0, PAGE + 1), -EINVAL);
		assert_error(call(r, 0, 4095), -EINVAL);
		assert_error(call(r, LENGTH, PAGE), -EINVAL);
		assert_error(call(r, 0, LENGTH + PAGE), -EINVAL);
		assert_error(call(r, PAGE, LENGTH), -EINVAL);
		assert_error(call(r, UINT64_MAX - 4095, PAGE), -EINVAL);
		assert_error(call(r, PAGE, UINT64_MAX - 4095), -EINVAL);
		assert_ok(call(r, 0, 0));
		assert_ok(call(r, LENGTH, 0));
	}
	assert_ok(hgm_start(t.h));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	assert_pages(&contents, 0, PAGES, t.ram.addr);
	end(&t);
}

/* The results of functions that would have to wait for the thread that calls them. */
struct caller {
	struct trial *t;
	_Atomic bool once;
	_Atomic int discard, before_write;
};

static void call_inside(struct caller *c)
{
	if (atomic_exchange(&c->once, true))
		return;
	c->discard = hgm_region_discard(c->t->ram.region, 2 * MIB, 2 * MIB);
	c->before_write = hgm_region_before_write(c->t->ram.region, 2 * MIB, 2 * MIB);
}

static void inside_the_source(void *user, const struct hgm_io *io)
{
	(void)io;
	call_inside(user);
}

static enum hgm_write_verdict inside_the_watch(void *user, struct hgm_region *r,
					       const struct hgm_span *what)
{
	(void)r;
	(void)what;
	call_inside(user);
	return HGM_WRITE_ALLOW;
}

static void not_from_inside(void **state)
{
	struct trial t = { 0 };
	struct caller c = { .t = &t };
	struct hgm_watch_opts o = { .size = sizeof(o), .write = inside_the_watch, .user = &c };
	uint8_t value;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		enum backing backing = i ? BACKING_ANON : BACKING_SHMEM;

		/* On a fault thread, and on a thread that makes the request itself. */
		assert_true(begin(&t, backing, "from the source", HGM_REGION_NO_FILL, 1));
		atomic_store(&t.ledger.user, &c);
		atomic_store(&t.ledger.before, inside_the_source);
		assert_ok(hgm_start(t.h));
		atomic_store(&c.once, false);
		assert_int_equal(touch(t.ram.addr, &value), 0);
		assert_int_equal(c.discard, -EDEADLK);
		assert_int_equal(c.before_write, -EDEADLK);
		/* A worker may call them. */
		atomic_store(&c.once, false);
		assert_ok(hgm_region_prefetch(t.ram.region, MIB, MIB));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(c.discard, 0);
		assert_int_equal(c.before_write, 0);
		assert_zeroes(t.ram.addr + 2 * MIB, 2 * MIB, t.what);
		atomic_store(&t.ledger.before, NULL);

		assert_ok(hgm_region_watch(t.ram.region, &o));
		assert_ok(hgm_region_protect(t.ram.region, 0, 2 * MIB, 0, NULL));
		atomic_store(&c.once, false);
		t.ram.addr[0] = 1;
		assert_int_equal(c.discard, -EDEADLK);
		assert_int_equal(c.before_write, -EDEADLK);
		/* The calling thread, which also runs the write function. */
		atomic_store(&c.once, false);
		c.discard = 0;
		assert_ok(hgm_region_discard(t.ram.region, MIB, PAGE));
		assert_int_equal(c.discard, -EDEADLK);
		assert_ok(hgm_region_unwatch(t.ram.region));
		end(&t);
	}
}

static uint64_t blocked_by(const char *tid, char name[32])
{
	char path[300], line[200];
	uint64_t mask = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/status", tid);
	file = fopen(path, "r");
	name[0] = 0;
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Name: %31s", name) == 1)
			continue;
		if (sscanf(line, "SigBlk: %" SCNx64, &mask) == 1)
			break;
	}
	if (file)
		fclose(file);
	return mask;
}

static bool blocks(uint64_t mask, int sig)
{
	return mask >> (sig - 1) & 1;
}

/* Threads of the library that block signals that they must not, or do not block the others. */
struct masks {
	unsigned int seen, wrong;
	char name[32]; /* of a wrong thread */
};

static bool masks_are_right(void *arg)
{
	static const int synchronous[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	static const int others[] = { SIGTERM, SIGALRM, SIGUSR1, SIGCHLD };
	DIR *dir = opendir("/proc/self/task");
	struct masks *m = arg;
	struct dirent *entry;

	m->seen = m->wrong = 0;
	while ((entry = readdir(dir))) {
		char name[32];
		uint64_t mask = blocked_by(entry->d_name, name);
		unsigned int wrong = 0;

		if (strncmp(name, "hgm-", 4) != 0)
			continue;
		m->seen++;
		for (size_t i = 0; i < sizeof(synchronous) / sizeof(synchronous[0]); i++)
			wrong += blocks(mask, synchronous[i]);
		for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
			wrong += !blocks(mask, others[i]);
		if (wrong)
			memcpy(m->name, name, sizeof(name));
		m->wrong += wrong;
	}
	closedir(dir);
	return !m->wrong;
}

/*
 * If a synchronous signal is blocked, it ends the process and bypasses the caller's handler. The C
 * library blocks all signals in a thread that has just begun.
 */
static void synchronous_signals_are_not_blocked(void **state)
{
	struct sink sink = { 0 };
	struct hgm_snapshot *s;
	struct masks masks = { 0 };
	struct trial t = { 0 };

	(void)state;
	assert_true(begin(&t, BACKING_SHMEM, "signals", 0, 1));
	assert_ok(hgm_start(t.h));
	sink_clear(&sink, LENGTH);
	s = snapshot_of(t.h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	if (!eventually(masks_are_right, &masks, 2000))
		fail_msg("%s and perhaps others: %u signals are blocked or not, wrongly",
			 masks.name, masks.wrong);
	/* Two fault threads, three workers, collapser, events, snapshot. */
	assert_true(masks.seen >= 8);
	hgm_snapshot_destroy(s);
	free(sink.got);
	end(&t);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(given_up_and_given_back),
	cmocka_unit_test(given_back_before_given_up),
	cmocka_unit_test(the_pool_is_empty_for_a_moment),
	cmocka_unit_test(the_answer_finds_no_memory),
	cmocka_unit_test(dropped_again_before_it_is_mapped),
	cmocka_unit_test(arguments_are_looked_at),
	cmocka_unit_test(not_from_inside),
	cmocka_unit_test(synchronous_signals_are_not_blocked),
};

TEST_MAIN(tests)
