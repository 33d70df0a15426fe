/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that is discarded while its contents are on their way. The answer comes later and does not
 * count. Reads return zero from then on, and writes after the discard stay, too.
 */
#include "discarding.h"

#include "snapshotting.h"
#include "install/installs.h"
#include "kernel/sys.h"
#include "region/hgm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS SMALLER(50000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define BLOCK	512 /* pages */

static const struct contents contents = { .seed = 223 };

struct trial {
	enum backing backing;
	char what[100];
	struct ledger ledger;
	struct hgm *h;
	struct ram ram;
	_Atomic uint64_t wanted; /* a page that must be on its way */
};

/* False: there is no such memory, or it is not this trial's turn. */
static bool begin(struct trial *t, enum backing backing, enum way way, uint32_t flags, bool keep)
{
	static unsigned int turn;

	if (backing_lacking(backing, LENGTH) || !turn_of(&turn, 3))
		return false;
	memset(t, 0, sizeof(*t));
	t->backing = backing;
	snprintf(t->what, sizeof(t->what), "%s, %s", backing_names[backing], way_names[way]);
	watch(t->what, 60);
	ledger_make(&t->ledger, &contents, LENGTH);
	atomic_store(&t->ledger.keep, keep);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, t->ledger.source, flags);
	assert_ok(hgm_start(t->h));
	return true;
}

static void end(struct trial *t)
{
	assert_int_equal(progress_of(t->h).poisoned_bytes, 0);
	assert_int_equal(progress_of(t->h).last_error, 0);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	ledger_free(&t->ledger);
	calm();
}

struct giver {
	char *memory;
	_Atomic bool back;
};

static void *give_one_back(void *arg)
{
	struct giver *g = arg;

	assert_int_equal(madvise(g->memory, PAGE, MADV_DONTNEED), 0);
	atomic_store(&g->back, true);
	return NULL;
}

static bool refuses_all(void *arg)
{
	int64_t done;

	return hgm_sys->uffd_zeropage(hgm_uffd_fd(arg), NULL, 0, 0, &done) == -EAGAIN;
}

static bool refuses_what_is_wrong(void *arg)
{
	int64_t done;

	return hgm_sys->uffd_zeropage(hgm_uffd_fd(arg), NULL, 0, 0, &done) == -EINVAL;
}

/*
 * The library relies on this. While an event is pending, every range ioctl returns EAGAIN, even one
 * that asks for nothing, and the thread that raised the event waits. Reading the event ends that.
 */
static void nothing_works_until_it_is_read(void **state)
{
	struct hgm_uffd_opts uo = { .size = sizeof(uo), .required = HGM_UFFD_FEATURE_EVENT_REMOVE };
	struct hgm_uffd_event ev;
	struct giver g = { 0 };
	struct hgm_uffd *u;
	pthread_t thread;

	(void)state;
	watch("nothing works until it is read", 60);
	assert_ok(hgm_uffd_open(&u, &uo));
	g.memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g.memory, MAP_FAILED);
	assert_ok(hgm_uffd_register(u, g.memory, PAGE, HGM_UFFD_MISSING, NULL));
	assert_true(refuses_what_is_wrong(u));
	assert_int_equal(pthread_create(&thread, NULL, give_one_back, &g), 0);
	assert_true(eventually(refuses_all, u, WAIT_MS));
	assert_false(atomic_load(&g.back));
	assert_true(refuses_all(u));
	assert_int_equal(hgm_uffd_read(u, &ev, 1), 1);
	assert_int_equal(ev.type, HGM_UFFD_EVENT_REMOVE);
	assert_true(eventually(refuses_what_is_wrong, u, WAIT_MS));
	pthread_join(thread, NULL);
	hgm_uffd_close(u);
	munmap(g.memory, PAGE);
	calm();
}

/* Fill asks for more only when it has received some. */
static bool on_its_way(void *arg)
{
	struct trial *t = arg;

	if (ledger_keeps(&t->ledger, t->wanted))
		return true;
	ledger_give_but(&t->ledger, t->wanted);
	return false;
}

static void wait_until_asked(struct trial *t, uint64_t page)
{
	t->wanted = page;
	if (!eventually(on_its_way, t, 5000))
		fail_msg("%s: page %llu is not asked for", t->what, (unsigned long long)page);
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void assert_read(struct trial *t, struct waiter *w, uint8_t value)
{
	if (!eventually(is_back, w, 5000))
		fail_msg("%s: the reader of a discarded page is left asleep", t->what);
	waiter_join(w);
	assert_int_equal(w->signal, 0);
	assert_int_equal(w->value, value);
}

static void assert_poked(struct trial *t, struct poker *p)
{
	if (!eventually(poker_done, p, 5000))
		fail_msg("%s: who writes to a discarded page is left asleep", t->what);
	pthread_join(p->thread, NULL);
}

/* All bytes are zero, except one in the middle of a page. */
static void assert_one_byte(const struct trial *t, uint64_t first, uint64_t pages, uint64_t page)
{
	uint64_t at = page * PAGE + 100;
	char *addr = t->ram.addr;

	if (addr[at] != 1)
		fail_msg("%s: the guest's write is lost: its byte is %#x", t->what,
			 (unsigned int)(uint8_t)addr[at]);
	assert_zeroes(addr + first * PAGE, at - first * PAGE, t->what);
	assert_zeroes(addr + at + 1, (first + pages) * PAGE - at - 1, t->what);
}

/*
 * Demand: a thread waits for a page since before the discard. Another thread writes to the page
 * after the discard, while the answer is still outstanding.
 */
static void demanded(enum backing backing, enum way way)
{
	uint64_t unit = backing >= BACKINGS_SMALL ? BLOCK : 8;
	uint64_t page = BLOCK + 100, first = page / unit * unit;
	struct waiter reader;
	struct poker writer;
	struct trial t;

	if (!begin(&t, backing, way, HGM_REGION_NO_FILL, true))
		return;
	waiter_start(&reader, t.ram.addr + page * PAGE);
	wait_until_asked(&t, page);
	discard_by(way, &t.ram, first * PAGE, unit * PAGE);
	poker_start(&writer, t.ram.addr + page * PAGE + 100);
	nap_us(2000); /* usually it then finds the page on its way */
	atomic_store(&t.ledger.keep, false);
	ledger_give(&t.ledger, LEDGER_REQUESTS);
	assert_read(&t, &reader, 0);
	assert_poked(&t, &writer);
	assert_one_byte(&t, first, unit, page);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	nap_us(20000); /* the collapser works on it */
	assert_one_byte(&t, first, unit, page);
	assert_pages(&contents, 0, first, t.ram.addr);
	assert_pages(&contents, first + unit, PAGES - first - unit,
		     t.ram.addr + (first + unit) * PAGE);
	end(&t);
}

/*
 * Fill: no thread waits. One call that is aligned to pages only discards all of the block: pages
 * that have arrived, pages on their way, and pages that were not requested yet.
 */
static void filled(enum backing backing, enum way way)
{
	uint64_t first = backing >= BACKINGS_SMALL ? 0 : 3;
	uint64_t pages = backing >= BACKINGS_SMALL ? BLOCK : BLOCK - 50;
	struct poker writer;
	struct trial t;

	if (!begin(&t, backing, way, 0, true))
		return;
	wait_until_asked(&t, 100);
	discard_by(way, &t.ram, first * PAGE, pages * PAGE);
	poker_start(&writer, t.ram.addr + 100 * PAGE + 100);
	nap_us(2000);
	atomic_store(&t.ledger.keep, false);
	ledger_give(&t.ledger, LEDGER_REQUESTS);
	assert_poked(&t, &writer);
	assert_one_byte(&t, first, pages, 100);
	assert_ok(hgm_wait(t.h, WAIT_MS));
	nap_us(20000);
	assert_one_byte(&t, first, pages, 100);
	assert_pages(&contents, 0, first, t.ram.addr);
	assert_pages(&contents, first + pages, PAGES - first - pages,
		     t.ram.addr + (first + pages) * PAGE);
	end(&t);
}

static void each(void (*one)(enum backing, enum way))
{
	for (enum backing backing = 0; backing < BACKINGS; backing++)
		for (enum way way = 0; way < WAYS; way++)
			if (backing != BACKING_HUGETLB_1G && way_shows(way, backing))
				one(backing, way);
}

static void the_answer_to_demand_is_dropped(void **state)
{
	(void)state;
	each(demanded);
}

static void the_answer_to_fill_is_dropped(void **state)
{
	(void)state;
	each(filled);
}

/* Half of a block's contents have arrived, and a thread waits for the whole block. */
static void half_of_a_huge_page(enum backing backing, enum way way)
{
	struct waiter reader;
	struct trial t;

	if (backing < BACKINGS_SMALL || !begin(&t, backing, way, HGM_REGION_NO_FILL, true))
		return;
	waiter_start(&reader, t.ram.addr + 500 * PAGE);
	wait_until_asked(&t, 500);
	ledger_give(&t.ledger, 4);
	discard_by(way, &t.ram, 0, BLOCK * PAGE);
	ledger_give(&t.ledger, 1);
	discard_by(way, &t.ram, 0, BLOCK * PAGE);
	atomic_store(&t.ledger.keep, false);
	ledger_give(&t.ledger, LEDGER_REQUESTS);
	assert_read(&t, &reader, 0);
	assert_zeroes(t.ram.addr, BLOCK * PAGE, t.what);
	memset(t.ram.addr, 0x5a, BLOCK * PAGE);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	for (uint64_t i = 0; i < BLOCK * PAGE; i++)
		assert_int_equal(t.ram.addr[i], 0x5a);
	assert_pages(&contents, BLOCK, BLOCK, t.ram.addr + BLOCK * PAGE);
	end(&t);
}

static void half_of_a_huge_page_has_come(void **state)
{
	(void)state;
	if (backing_lacking(BACKING_HUGETLB_2M, LENGTH))
		test_skip("%s", backing_lacking(BACKING_HUGETLB_2M, LENGTH));
	each(half_of_a_huge_page);
}

/* Punches in the middle of the source's own call, whichever thread runs it. */
static void punch_under_the_source(void *user, const struct hgm_io *io)
{
	struct trial *t = user;
	uint64_t first = io->offset / PAGE, page = atomic_load(&t->wanted);

	if (page - first < io->length / PAGE)
		discard_by(WAY_PUNCH, &t->ram, page / BLOCK * BLOCK * PAGE, BLOCK * PAGE);
}

/* The source writes into memory that is dropped meanwhile. None of these contents stay. */
static void dropped_while_the_source_writes(void **state)
{
	static const enum backing backings[] = { BACKING_FD, BACKING_MAPPING,
						 BACKING_FD_HUGETLB_2M };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(backings) / sizeof(backings[0]); i++) {
		struct trial t;

		if (!begin(&t, backings[i / 2], WAY_PUNCH, HGM_REGION_NO_FILL, false))
			continue;
		t.wanted = BLOCK + 77;
		atomic_store(&t.ledger.user, &t);
		atomic_store(&t.ledger.before, punch_under_the_source);
		if (i % 2)
			assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
		assert_int_equal(t.ram.addr[t.wanted * PAGE], 0);
		t.ram.addr[t.wanted * PAGE] = 1;
		assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
		assert_ok(hgm_wait(t.h, WAIT_MS));
		assert_int_equal(t.ram.addr[t.wanted * PAGE], 1);
		assert_zeroes(t.ram.addr + t.wanted * PAGE + 1, PAGE - 1, t.what);
		assert_pages(&contents, 0, BLOCK, t.ram.addr);
		end(&t);
	}
}

static const struct hgm_sys *kernel; /* the one that runs, or a model */
static struct hgm_sys sys;

/*
 * A thread that discards just before a page of the region is copied in, and the thread that copies.
 */
static struct {
	_Atomic bool armed;
	const struct ram *ram;
	enum way way;
	uint64_t page;
	pthread_t thread;
} ambush;

static void *ambusher(void *arg)
{
	(void)arg;
	discard_by(ambush.way, ambush.ram, ambush.page * PAGE, 4 * PAGE);
	return NULL;
}

static int odd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done)
{
	uint64_t at = (uintptr_t)dst;

	if (atomic_load(&ambush.armed) && at <= (uintptr_t)ambush.ram->addr + ambush.page * PAGE &&
	    at + len > (uintptr_t)ambush.ram->addr + ambush.page * PAGE &&
	    atomic_exchange(&ambush.armed, false)) {
		pthread_create(&ambush.thread, NULL, ambusher, NULL);
		nap_us(20000); /* let it get as far as it can */
	}
	return kernel->uffd_copy(fd, dst, src, len, mode, done);
}

static int ambush_set_up(void **state)
{
	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_copy = odd_copy;
	hgm_sys = &sys;
	return 0;
}

static int ambush_tear_down(void **state)
{
	(void)state;
	hgm_sys = kernel;
	return 0;
}

/* A memory source: discards the page that a fault thread, or a worker, is just copying. */
static void ambushed(enum backing backing, enum way way, bool fill)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	char what[100];
	struct hgm *h;
	struct ram ram;
	uint8_t value;

	snprintf(what, sizeof(what), "%s, %s, %s", backing_names[backing], way_names[way],
		 fill ? "fill" : "demand");
	watch(what, 60);
	h = engine(1);
	ram_make(&ram, h, backing, LENGTH, provider_source(provider),
		 fill ? 0 : HGM_REGION_NO_FILL);
	ambush.ram = &ram;
	ambush.way = way;
	ambush.page = BLOCK + 40;
	atomic_store(&ambush.armed, true);
	assert_ok(hgm_start(h));
	if (fill) {
		assert_ok(hgm_wait(h, WAIT_MS));
	} else {
		assert_int_equal(touch(ram.addr + ambush.page * PAGE, &value), 0);
	}
	pthread_join(ambush.thread, NULL);
	assert_zeroes(ram.addr + ambush.page * PAGE, 4 * PAGE, what);
	memset(ram.addr + ambush.page * PAGE, 0x5a, PAGE);
	assert_ok(hgm_region_prefetch(ram.region, 0, LENGTH));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_int_equal(ram.addr[ambush.page * PAGE + 9], 0x5a);
	assert_zeroes(ram.addr + (ambush.page + 1) * PAGE, 3 * PAGE, what);
	assert_pages(&contents, 0, ambush.page, ram.addr);
	assert_pages(&contents, ambush.page + 4, PAGES - ambush.page - 4,
		     ram.addr + (ambush.page + 4) * PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static void discarded_while_it_is_copied(void **state)
{
	static const enum backing backings[] = { BACKING_ANON, BACKING_MAPPING_ANON,
						 BACKING_SHMEM_LAZY, BACKING_FD_LAZY };
	unsigned int turn = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		for (enum way way = 0; way < WAYS; way++) {
			if (!way_shows(way, backings[i]) || !turn_of(&turn, 3))
				continue;
			ambushed(backings[i], way, false);
			ambushed(backings[i], way, true);
		}
	}
}

static void *destroy(void *region)
{
	hgm_region_destroy(region);
	return NULL;
}

static bool is_in_no_table(void *h)
{
	return !progress_of(h).total_bytes;
}

/* The source writes into a hole of a region that ends. The end of the region waits for it. */
static void answered_while_the_region_ends(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING,
						 BACKING_HUGETLB_2M };

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct waiter waiter;
		pthread_t thread;
		struct trial t;

		if (!begin(&t, backings[i], WAY_CALL, HGM_REGION_NO_FILL, true))
			continue;
		waiter_start(&waiter, t.ram.addr + 3 * PAGE);
		wait_until_asked(&t, 3);
		assert_ok(hgm_region_discard(t.ram.region, 0, LENGTH));
		assert_int_equal(pthread_create(&thread, NULL, destroy, t.ram.region), 0);
		assert_true(eventually(is_in_no_table, t.h, WAIT_MS));
		ledger_give(&t.ledger, UINT_MAX);
		pthread_join(thread, NULL);
		waiter_join(&waiter);
		ram_release(&t.ram);
		hgm_destroy(t.h);
		ledger_free(&t.ledger);
		calm();
	}
}

/* At the snapshot's instant the memory is zero, whatever the source has for it. */
static void a_snapshot_meanwhile(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON,
						 BACKING_FD, BACKING_HUGETLB_2M };
	struct sink sink = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct hgm_snapshot *s;
		struct waiter waiter;
		struct trial t;

		if (!begin(&t, backings[i], WAY_CALL, HGM_REGION_NO_FILL, true))
			continue;
		waiter_start(&waiter, t.ram.addr + 3 * PAGE);
		wait_until_asked(&t, 3);
		assert_ok(hgm_region_discard(t.ram.region, 3 * PAGE, PAGE));
		atomic_store(&t.ledger.keep, false);
		sink_clear(&sink, LENGTH);
		s = snapshot_of(t.h,
				&(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
		assert_ok(hgm_snapshot_begin(s));
		assert_ok(hgm_snapshot_wait(s, WAIT_MS));
		hgm_snapshot_destroy(s);
		assert_zeroes(sink.got + 3 * PAGE, PAGE, t.what);
		assert_pages(&contents, 0, 3, sink.got);
		assert_pages(&contents, 4, PAGES - 4, sink.got + 4 * PAGE);
		ledger_give(&t.ledger, UINT_MAX);
		assert_read(&t, &waiter, 0);
		end(&t);
	}
	free(sink.got);
}

/*
 * Page table entries around the hole are dropped at the same time, but not their pages. That the
 * page is a hole does not prove that the others were discarded as well.
 */
static void entries_are_dropped_meanwhile(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_FD, BACKING_MAPPING };

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct waiter waiter;
		struct trial t;

		if (!begin(&t, backings[i], WAY_DONTNEED, HGM_REGION_NO_FILL, true))
			continue;
		waiter_start(&waiter, t.ram.addr + 3 * PAGE);
		wait_until_asked(&t, 3);
		assert_ok(hgm_region_discard(t.ram.region, 3 * PAGE, PAGE));
		assert_int_equal(madvise(t.ram.addr, 1 * MIB, MADV_DONTNEED), 0);
		ledger_give(&t.ledger, UINT_MAX);
		assert_read(&t, &waiter, 0);
		atomic_store(&t.ledger.keep, false);
		ledger_give(&t.ledger, UINT_MAX);
		assert_pages(&contents, 200, PAGES - 200, t.ram.addr + 200 * PAGE);
		end(&t);
	}
}

/* A thread of the engine that has read the event of dropped pages, and is stopped there. */
static struct {
	_Atomic bool armed, there, go;
	const struct ram *ram;
	enum way way;
	uint64_t page, pages;
} reader;

static ssize_t held_read(int fd, void *buf, size_t len)
{
	ssize_t n = kernel->read(fd, buf, len);
	const struct uffd_msg *msg = buf;

	if (n >= (ssize_t)sizeof(*msg) && msg->event == UFFD_EVENT_REMOVE &&
	    atomic_exchange(&reader.armed, false)) {
		atomic_store(&reader.there, true);
		while (!atomic_load(&reader.go))
			nap_us(100);
	}
	return n;
}

static void *dropper(void *arg)
{
	discard_by(reader.way, reader.ram, reader.page * PAGE, reader.pages * PAGE);
	return arg;
}

/* Call this before the engine is created. */
static void hold_reader(void)
{
	kernel = hgm_sys;
	sys = *kernel;
	sys.read = held_read;
	hgm_sys = &sys;
	atomic_store(&reader.there, false);
	atomic_store(&reader.go, false);
}

/* The kernel has dropped four pages, and only one thread of the engine knows that. */
static void drop_unnoted(const struct ram *ram, enum way way)
{
	pthread_t thread;

	reader.ram = ram;
	reader.way = way;
	reader.page = BLOCK + 40;
	reader.pages = 4;
	atomic_store(&reader.armed, true);
	assert_int_equal(pthread_create(&thread, NULL, dropper, NULL), 0);
	while (!atomic_load(&reader.there))
		nap_us(100);
	pthread_join(thread, NULL);
}

/* The region drops other pages, after those of an event that was read but not handled yet. */
static void an_event_is_noted_late(void **state)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	struct ram ram;
	struct hgm *h;

	(void)state;
	watch("an event that is noted late", 60);
	hold_reader();
	h = engine(1);
	ram_make(&ram, h, BACKING_FD_LAZY, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	drop_unnoted(&ram, WAY_REMOVE);
	assert_ok(hgm_region_discard(ram.region, 0, PAGE));
	atomic_store(&reader.go, true);
	assert_zeroes(ram.addr + reader.page * PAGE, reader.pages * PAGE, "an event noted late");
	assert_zeroes(ram.addr, PAGE, "the region's own");
	assert_pages(&contents, 1, 4, ram.addr + PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_sys = kernel;
	provider_free(provider);
	calm();
}

#define HOG_US 350000 /* longer than a range stays suspect, shorter than the kernel's limit */

static struct {
	_Atomic bool held, hogging; /* events are not read; only the hog runs on its CPU */
	_Atomic int tid;	    /* of the thread that drops */
	_Atomic bool back;
} late;

static ssize_t read_when_hogged(int fd, void *buf, size_t len)
{
	while (atomic_load(&late.held) && !atomic_load(&late.hogging))
		nap_us(100);
	return kernel->read(fd, buf, len);
}

static void *hog(void *arg)
{
	atomic_store(&late.hogging, true);
	while (atomic_load(&late.hogging))
		;
	return arg;
}

static void *drop_late(void *arg)
{
	atomic_store(&late.tid, gettid());
	discard_by(WAY_REMOVE, arg, MIB, 4 * PAGE);
	atomic_store(&late.back, true);
	return NULL;
}

static bool waits_for_reader(void *arg)
{
	char path[64], state = 'R';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&late.tid));
	file = fopen(path, "r");
	if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 'R';
	if (file)
		fclose(file);
	return state != 'R' && refuses_all(arg);
}

static bool has_suspects(void *arg)
{
	return atomic_load(&((struct hgm_region *)arg)->install->suspects.count);
}

static int start_on(pthread_t *thread, int cpu, int policy, void *(*fn)(void *), void *arg)
{
	struct sched_param priority = { .sched_priority = policy == SCHED_FIFO };
	pthread_attr_t attr;
	cpu_set_t set;
	int rc;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, policy);
	pthread_attr_setschedparam(&attr, &priority);
	rc = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return rc;
}

/* The event is read. Then the thread that raised it gets no CPU for long before it drops pages. */
static void dropped_late(void **state)
{
	int last = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
	struct provider *provider;
	pthread_t owner, hogs;
	struct ram ram;
	struct hgm *h;
	int rc;

	(void)state;
	if (last < 1)
		test_skip("%s", "one CPU is not enough");
	watch("dropped late", 60);
	hold_reader();
	sys.read = read_when_hogged;
	provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	h = engine(1);
	ram_make(&ram, h, BACKING_SHMEM_LAZY, LENGTH, provider_source(provider),
		 HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	atomic_store(&late.hogging, false);
	atomic_store(&late.back, false);
	atomic_store(&late.held, true);
	assert_int_equal(start_on(&owner, last, SCHED_OTHER, drop_late, &ram), 0);
	assert_true(eventually(waits_for_reader, h->space.uffd[0], WAIT_MS));
	rc = start_on(&hogs, last, SCHED_FIFO, hog, NULL);
	if (!rc) {
		assert_true(eventually(has_suspects, ram.region, WAIT_MS));
		nap_us(HOG_US);
		atomic_store(&late.hogging, false);
		pthread_join(hogs, NULL);
	}
	atomic_store(&late.held, false);
	pthread_join(owner, NULL);
	assert_zeroes(ram.addr + MIB, 4 * PAGE, "dropped late");
	assert_pages(&contents, 0, 10, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_sys = kernel;
	provider_free(provider);
	calm();
	if (rc)
		test_skip("%s", "no real-time priority here");
}

static struct {
	_Atomic bool changing; /* what the kernel says of the address space */
	_Atomic int told_no;   /* how often it said no */
	_Atomic bool dropped;
} changes;

/*
 * A thread gets no CPU for longer than it waits for a drop, and is told no. From then on its time
 * stands still until the pages are dropped.
 */
#define STARVED_US 300000
static _Thread_local struct timespec told_at;

static int say_whether_changing(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	if (len)
		return kernel->uffd_zeropage(fd, addr, len, mode, done);
	if (atomic_load(&changes.changing))
		return -EAGAIN;
	if (!told_at.tv_sec) {
		nap_us(STARVED_US);
		clock_gettime(CLOCK_MONOTONIC, &told_at);
	}
	atomic_fetch_add(&changes.told_no, 1);
	return -EINVAL;
}

/* Replaces the function of the C library. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	if (id != CLOCK_MONOTONIC || !told_at.tv_sec || atomic_load(&changes.dropped))
		return (int)syscall(SYS_clock_gettime, id, ts);
	*ts = told_at;
	return 0;
}

static bool was_told_no(void *arg)
{
	(void)arg;
	return atomic_load(&changes.told_no) >= 3;
}

/*
 * The kernel says that nothing changes as soon as the thread that raised the event runs again, and
 * that is before it drops pages. Here the event is that of MADV_DONTNEED; the test drops pages.
 */
static void dropped_after_the_kernel_has_said_so(void **state)
{
	struct provider *provider;
	struct ram ram;
	struct hgm *h;

	(void)state;
	watch("dropped after the kernel has said so", 60);
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_zeropage = say_whether_changing;
	hgm_sys = &sys;
	atomic_store(&changes.changing, true);
	atomic_store(&changes.told_no, 0);
	atomic_store(&changes.dropped, false);
	provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	h = engine(1);
	ram_make(&ram, h, BACKING_FD_LAZY, LENGTH, provider_source(provider), HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	assert_int_equal(madvise(ram.addr + MIB, 4 * PAGE, MADV_DONTNEED), 0);
	assert_true(eventually(has_suspects, ram.region, WAIT_MS));
	nap_us(HOG_US);
	atomic_store(&changes.changing, false);
	assert_true(eventually(was_told_no, NULL, WAIT_MS));
	discard_by(WAY_PUNCH, &ram, MIB, 4 * PAGE);
	atomic_store(&changes.dropped, true);
	assert_zeroes(ram.addr + MIB, 4 * PAGE, "dropped after the kernel has said so");
	assert_pages(&contents, 0, 10, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_sys = kernel;
	provider_free(provider);
	calm();
}

/* The engine's only request, which is answered later. */
static struct {
	struct hgm_io io;
	_Atomic bool asked;
} unanswered;

static int64_t keep_one(void *user, const struct hgm_io *io)
{
	(void)user;
	unanswered.io = *io; /* only one page is touched */
	atomic_store(&unanswered.asked, true);
	return HGM_IO_LATER;
}

/* A page is given up after its drop, but before the event is handled. It does not stay poison. */
static void given_up_before_it_is_noted(void **state)
{
	struct hgm_source *src;
	struct waiter waiter;
	struct ram ram;
	struct hgm *h;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("given up before the event is noted", 60);
	hold_reader();
	assert_ok(hgm_source_fn(&src, keep_one, NULL, NULL));
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = HGM_RETRY_NEVER });
	ram_make(&ram, h, BACKING_ANON, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + (BLOCK + 41) * PAGE);
	while (!atomic_load(&unanswered.asked))
		nap_us(100);
	drop_unnoted(&ram, WAY_DONTNEED);
	assert_ok(hgm_io_done(&unanswered.io, -EIO)); /* a worker does the rest */
	nap_us(50000);				      /* let it get as far as it can */
	atomic_store(&reader.go, true);
	waiter_join(&waiter);
	assert_zeroes(ram.addr + reader.page * PAGE, reader.pages * PAGE, "given up");
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	hgm_sys = kernel;
	calm();
}

/*
 * An event is raised just after the check for events, while a fault is pending that is woken before
 * it is read. The read then returns the event instead.
 */
static int zeropage_before_the_event(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return len ? kernel->uffd_zeropage(fd, addr, len, mode, done) : -EINVAL;
}

static ssize_t pread_pending(int fd, void *buf, size_t len, uint64_t offset)
{
	static const char pending[] = "pending:\t1\n";
	ssize_t n = kernel->pread(fd, buf, len, offset);

	if (n < (ssize_t)sizeof(pending) || memcmp(buf, pending, 8) != 0)
		return n;
	memcpy(buf, pending, sizeof(pending) - 1);
	return sizeof(pending) - 1;
}

static void *let_reader_go(void *arg)
{
	nap_us(50000); /* let the copying thread get as far as it can */
	atomic_store(&reader.go, true);
	return arg;
}

static pthread_t releaser;

static int copy_behind_the_drop(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
				int64_t *done)
{
	uint64_t at = (uintptr_t)dst, page = (uintptr_t)ambush.ram->addr + ambush.page * PAGE;

	if (at <= page && page < at + len && atomic_exchange(&ambush.armed, false)) {
		drop_unnoted(ambush.ram, ambush.way);
		pthread_create(&releaser, NULL, let_reader_go, NULL);
	}
	return kernel->uffd_copy(fd, dst, src, len, mode, done);
}

/* An engine whose worker is going to copy pages that are dropped meanwhile. */
static struct hgm *start_behind_the_drop(struct ram *ram, enum backing backing, enum way way,
					 struct provider *provider)
{
	struct hgm *h;

	hold_reader();
	sys.uffd_zeropage = zeropage_before_the_event;
	sys.pread = pread_pending;
	sys.uffd_copy = copy_behind_the_drop;
	h = engine(1);
	ram_make(ram, h, backing, LENGTH, provider_source(provider), 0);
	ambush.ram = ram;
	ambush.way = way;
	ambush.page = BLOCK + 40;
	atomic_store(&ambush.armed, true);
	assert_ok(hgm_start(h));
	return h;
}

/* A worker copies pages that it found not discarded, but the kernel had dropped them before. */
static void copied_behind_the_drop(enum backing backing, enum way way)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	struct ram ram;
	struct hgm *h;

	watch(backing_names[backing], 60);
	h = start_behind_the_drop(&ram, backing, way, provider);
	assert_ok(hgm_wait(h, WAIT_MS));
	pthread_join(releaser, NULL);
	assert_zeroes(ram.addr + reader.page * PAGE, reader.pages * PAGE, backing_names[backing]);
	assert_pages(&contents, 0, reader.page, ram.addr);
	assert_pages(&contents, reader.page + 4, PAGES - reader.page - 4,
		     ram.addr + (reader.page + 4) * PAGE);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_sys = kernel;
	provider_free(provider);
	calm();
}

/* The same, but the region ends before the event is handled, and its memory stays. */
static void a_region_ends_behind_the_event(void **state)
{
	struct provider *provider = provider_make(PROVIDER_MEMORY, &contents, LENGTH);
	struct ram ram;
	struct hgm *h;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("a region ends behind the event", 60);
	h = start_behind_the_drop(&ram, BACKING_MAPPING_ANON, WAY_DONTNEED, provider);
	while (!atomic_load(&reader.there))
		nap_us(100);
	hgm_region_destroy(ram.region);
	pthread_join(releaser, NULL);
	assert_zeroes(ram.addr + reader.page * PAGE, reader.pages * PAGE, "after its end");
	ram_release(&ram);
	hgm_destroy(h);
	hgm_sys = kernel;
	provider_free(provider);
	calm();
}

static int poison_behind_the_drop(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	if (atomic_exchange(&ambush.armed, false)) {
		drop_unnoted(ambush.ram, ambush.way);
		pthread_create(&releaser, NULL, let_reader_go, NULL);
	}
	return kernel->uffd_poison(fd, addr, len, mode, done);
}

static bool can_be_read(void *at)
{
	uint8_t value;

	return !touch(at, &value);
}

/* The same for a page that is given up. It may be poison for a moment, but does not stay so. */
static void poisoned_behind_the_drop(void **state)
{
	struct hgm_source *src;
	struct waiter waiter;
	struct ram ram;
	struct hgm *h;

	(void)state;
	skip_unless(KERNEL_POISON);
	watch("poisoned behind the drop", 60);
	hold_reader();
	sys.uffd_zeropage = zeropage_before_the_event;
	sys.pread = pread_pending;
	sys.uffd_poison = poison_behind_the_drop;
	atomic_store(&unanswered.asked, false);
	assert_ok(hgm_source_fn(&src, keep_one, NULL, NULL));
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .retries = HGM_RETRY_NEVER });
	ram_make(&ram, h, BACKING_ANON, LENGTH, src, HGM_REGION_NO_FILL);
	ambush.ram = &ram;
	ambush.way = WAY_DONTNEED;
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr + (BLOCK + 41) * PAGE);
	while (!atomic_load(&unanswered.asked))
		nap_us(100);
	atomic_store(&ambush.armed, true);
	assert_ok(hgm_io_done(&unanswered.io, -EIO)); /* a worker does the rest */
	waiter_join(&waiter);
	pthread_join(releaser, NULL);
	assert_true(eventually(can_be_read, ram.addr + (BLOCK + 41) * PAGE, 2000));
	assert_zeroes(ram.addr + reader.page * PAGE, reader.pages * PAGE, "given up");
	assert_int_equal(progress_of(h).poisoned_bytes, 0);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	hgm_sys = kernel;
	calm();
}

static void an_event_is_read_instead_of_a_fault(void **state)
{
	(void)state;
	copied_behind_the_drop(BACKING_ANON, WAY_DONTNEED);
	copied_behind_the_drop(BACKING_SHMEM_LAZY, WAY_REMOVE);
}

/*
 * The fault thread gets no CPU after an event has woken it. Until it does, the kernel refuses to
 * map anything. A thread that is refused waits longer before each new attempt.
 */
#define REGIONS	       3
#define WORKERS	       3
#define REFUSED_TIMES  9  /* for one range, until the thread goes on */
#define BACKOFF_MIN_US 50 /* after the first refusal */
#define BACKOFF_MAX_US 100000

static struct {
	_Atomic bool armed, there, go;
	pthread_mutex_t lock;
	_Atomic unsigned int ranges;
	_Atomic unsigned int most; /* refusals of one range */
	struct refused {
		const void *addr;
		unsigned int times;
		uint64_t first_us, last_us;
	} refused[REGIONS * PAGES]; /* each page may be the first of a range */
} unread = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool is_unread(void)
{
	return atomic_load(&unread.there) && !atomic_load(&unread.go);
}

static void note_refused(const void *addr)
{
	struct refused *one = unread.refused;
	uint64_t now = now_us();

	pthread_mutex_lock(&unread.lock);
	while (one < unread.refused + unread.ranges && one->addr != addr)
		one++;
	if (one == unread.refused + unread.ranges) {
		unread.ranges++;
		one->addr = addr;
		one->times = 0;
		one->first_us = now;
	}
	one->last_us = now;
	if (++one->times > atomic_load(&unread.most))
		atomic_store(&unread.most, one->times);
	pthread_mutex_unlock(&unread.lock);
}

static int refused_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			int64_t *done)
{
	bool pending = is_unread();
	int rc = kernel->uffd_copy(fd, dst, src, len, mode, done);

	if (pending && rc == -EAGAIN)
		note_refused(dst);
	return rc;
}

static int refused_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	bool pending = is_unread();
	int rc = kernel->uffd_continue(fd, addr, len, mode, done);

	if (pending && rc == -EAGAIN)
		note_refused(addr);
	return rc;
}

static int late_poll(struct pollfd *fds, unsigned int n, int64_t timeout_ns)
{
	char name[16] = "";
	int rc = kernel->poll(fds, n, timeout_ns);

	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (rc > 0 && fds[0].revents && !strncmp(name, "hgm-fault", 9) &&
	    atomic_exchange(&unread.armed, false)) {
		atomic_store(&unread.there, true);
		while (!atomic_load(&unread.go))
			nap_us(100);
	}
	return rc;
}

static bool is_refused_often(void *arg)
{
	(void)arg;
	return atomic_load(&unread.most) >= REFUSED_TIMES && atomic_load(&unread.ranges) >= WORKERS;
}

static bool event_is_there(void *arg)
{
	(void)arg;
	return atomic_load(&unread.there);
}

/*
 * This holds on fast and slow machines. Between two refusals of a range its owner has to wait,
 * twice as long each time. So the count of refusals is the logarithm of the time.
 */
static void assert_tried_ever_later(const char *what)
{
	for (unsigned int i = 0; i < unread.ranges; i++) {
		const struct refused *one = &unread.refused[i];
		uint64_t least_us = 0, wait_us = BACKOFF_MIN_US;

		for (unsigned int k = 1; k < one->times; k++) {
			least_us += wait_us;
			wait_us = wait_us * 2 < BACKOFF_MAX_US ? wait_us * 2 : BACKOFF_MAX_US;
		}
		if (one->last_us + 1 < one->first_us + least_us)
			fail_msg("%s: %u refusals within %llu us", what, one->times,
				 (unsigned long long)(one->last_us - one->first_us));
	}
}

static bool is_asleep(void *h)
{
	return stats_of(h).sleeps;
}

static void refused_for_a_while(enum backing backing, enum way way, uint32_t flags)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_fill_opts paused = { .size = sizeof(paused), .flags = HGM_FILL_PAUSED };
	struct ram ram[REGIONS];
	pthread_t thread;
	struct hgm *h;

	watch(backing_names[backing], 60);
	h = engine_with((struct hgm_opts){ .fault_threads = 1, .workers = WORKERS });
	for (unsigned int i = 0; i < REGIONS; i++)
		ram_make(&ram[i], h, backing, LENGTH, provider_source(provider), flags);
	assert_ok(hgm_set_fill(h, &paused));
	assert_ok(hgm_start(h));
	assert_true(eventually(is_asleep, h, WAIT_MS));
	unread.ranges = 0;
	atomic_store(&unread.most, 0);
	atomic_store(&unread.there, false);
	atomic_store(&unread.go, false);
	atomic_store(&unread.armed, true);
	reader.ram = &ram[0];
	reader.way = way;
	reader.page = BLOCK + 40;
	reader.pages = 4;
	assert_int_equal(pthread_create(&thread, NULL, dropper, NULL), 0);
	assert_true(eventually(event_is_there, NULL, WAIT_MS));
	assert_ok(hgm_set_fill(h, NULL));
	if (!eventually(is_refused_often, NULL, WAIT_MS))
		fail_msg("%s: %u ranges are refused, %u times at most", backing_names[backing],
			 unread.ranges, unread.most);
	atomic_store(&unread.go, true);
	pthread_join(thread, NULL);
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_tried_ever_later(backing_names[backing]);
	for (unsigned int i = 0; i < REGIONS; i++) {
		uint64_t gone = i ? 0 : reader.pages;

		assert_zeroes(ram[i].addr + reader.page * PAGE, gone * PAGE,
			      backing_names[backing]);
		assert_pages(&contents, 0, reader.page, ram[i].addr);
		assert_pages(&contents, reader.page + gone, PAGES - reader.page - gone,
			     ram[i].addr + (reader.page + gone) * PAGE);
		ram_end(&ram[i]);
	}
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static void nobody_spins_while_an_event_is_unread(void **state)
{
	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.poll = late_poll;
	sys.uffd_copy = refused_copy;
	sys.uffd_continue = refused_continue;
	hgm_sys = &sys;
	refused_for_a_while(BACKING_ANON, WAY_DONTNEED, 0);
	refused_for_a_while(BACKING_SHMEM_LAZY, WAY_REMOVE, 0);
	refused_for_a_while(BACKING_SHMEM, WAY_REMOVE, HGM_REGION_NO_COLLAPSE);
	hgm_sys = kernel;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(nothing_works_until_it_is_read),
	cmocka_unit_test(given_up_before_it_is_noted),
	cmocka_unit_test(an_event_is_noted_late),
	cmocka_unit_test(dropped_late),
	cmocka_unit_test(dropped_after_the_kernel_has_said_so),
	cmocka_unit_test(nobody_spins_while_an_event_is_unread),
	cmocka_unit_test(an_event_is_read_instead_of_a_fault),
	cmocka_unit_test(a_region_ends_behind_the_event),
	cmocka_unit_test(poisoned_behind_the_drop),
	cmocka_unit_test(entries_are_dropped_meanwhile),
	cmocka_unit_test(a_snapshot_meanwhile),
	cmocka_unit_test(answered_while_the_region_ends),
	cmocka_unit_test(the_answer_to_demand_is_dropped),
	cmocka_unit_test(the_answer_to_fill_is_dropped),
	cmocka_unit_test(half_of_a_huge_page_has_come),
	cmocka_unit_test(dropped_while_the_source_writes),
	cmocka_unit_test_setup_teardown(discarded_while_it_is_copied, ambush_set_up,
					ambush_tear_down),
};

TEST_MAIN(tests)
