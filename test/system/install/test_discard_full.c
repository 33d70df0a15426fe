/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file of a tmpfs with a size limit. Another file takes the space of discarded pages. A thread
 * that needs these pages waits until there is space again. All others go on, and no process dies.
 */
#include "discarding.h"

#include "snapshotting.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define ASKED	64 /* pages that are requested in one piece, from the first page on */
#define FROM	4  /* the pages that are discarded */
#define GONE	8
#define APART	600 /* a page that is unrelated to them */

static const struct contents contents = { .seed = 251 };

struct trial {
	char what[100];
	struct ledger ledger;
	struct hgm *h;
	struct ram ram;
	int theirs; /* the other file */
};

static int open_in(const char *folder, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

/* Two files of a tmpfs that has room for the region only. It is unmounted already. */
static const char *open_files(int *ours, int *theirs)
{
	char folder[] = "/tmp/hgm-full-XXXXXX", size[40];

	if (!mkdtemp(folder))
		return "no directory can be made";
	snprintf(size, sizeof(size), "size=%llu", (unsigned long long)LENGTH);
	if (mount("none", folder, "tmpfs", 0, size)) {
		rmdir(folder);
		return "tmpfs cannot be mounted";
	}
	*ours = open_in(folder, "ours");
	*theirs = open_in(folder, "theirs");
	assert_int_equal(umount2(folder, MNT_DETACH), 0);
	rmdir(folder);
	assert_int_equal(ftruncate(*ours, LENGTH), 0);
	return NULL;
}

static const char *begin(struct trial *t, const char *what, enum way way)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LENGTH,
				     .backing = HGM_BACKING_FD,
				     .flags = HGM_REGION_NO_FILL };
	const char *lacking;

	memset(t, 0, sizeof(*t));
	lacking = open_files(&o.fd, &t->theirs);
	if (lacking)
		return lacking;
	snprintf(t->what, sizeof(t->what), "%s, %s", what, way_names[way]);
	watch(t->what, 60);
	ledger_make(&t->ledger, &contents, LENGTH);
	t->h = engine(2);
	o.source = t->ledger.source;
	t->ram = (struct ram){ .fd = o.fd, .length = LENGTH };
	assert_ok(hgm_region_create(&t->ram.region, t->h, &o));
	t->ram.addr = hgm_region_addr(t->ram.region);
	assert_ok(hgm_start(t->h));
	return NULL;
}

static void end(struct trial *t)
{
	assert_int_equal(info_of(t->ram.region).poisoned_bytes, 0);
	assert_int_equal(stats_of(t->h).poisoned_pages, 0);
	ram_end(&t->ram);
	hgm_destroy(t->h);
	ledger_free(&t->ledger);
	close(t->theirs);
	calm();
}

/* Takes all free space. Returns the number of pages. */
static uint64_t take_space(struct trial *t)
{
	static const char page[PAGE] = "theirs";
	uint64_t pages = 0;

	while (pwrite(t->theirs, page, PAGE, (off_t)(pages * PAGE)) == PAGE)
		pages++;
	assert_int_equal(errno, ENOSPC);
	return pages;
}

static void give_space_back(struct trial *t)
{
	assert_int_equal(ftruncate(t->theirs, 0), 0);
}

static bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

static void assert_read(const struct trial *t, struct waiter *w, uint8_t value, const char *when)
{
	if (!eventually(is_back, w, 5000))
		fail_msg("%s, %s: a reader is left asleep", t->what, when);
	waiter_join(w);
	if (w->signal || w->value != value)
		fail_msg("%s, %s: signal %d, byte %#x instead of %#x", t->what, when, w->signal,
			 w->value, value);
}

static const struct hgm_sys *kernel;
static _Atomic unsigned int refused; /* pages for which there was no space */

static int count_refused(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc = kernel->uffd_zeropage(fd, addr, len, mode, done);

	if (rc == -ENOMEM || rc == -ENOSPC)
		atomic_fetch_add(&refused, 1);
	return rc;
}

static bool lacks_space(void *arg)
{
	(void)arg;
	return atomic_load(&refused);
}

/* The snapshot allocates none of it, and does not treat it as unreadable. */
static void assert_snapshot(struct trial *t)
{
	struct sink sink = { 0 };
	struct hgm_snapshot *s;

	sink_clear(&sink, LENGTH);
	s = snapshot_of(t->h, &(struct hgm_snapshot_opts){ .write = sink_write, .user = &sink });
	assert_ok(hgm_snapshot_begin(s));
	assert_ok(hgm_snapshot_wait(s, WAIT_MS));
	assert_int_equal(snapshot_progress(s).unreadable_bytes, 0);
	hgm_snapshot_destroy(s);
	assert_pages(&contents, 0, FROM, sink.got);
	assert_zeroes(sink.got + FROM * PAGE, GONE * PAGE, t->what);
	assert_pages(&contents, FROM + GONE, PAGES - FROM - GONE, sink.got + (FROM + GONE) * PAGE);
	free(sink.got);
}

/* The space is taken. A thread that needs no space goes on, and a thread that needs some waits. */
static void go_on_without(struct trial *t)
{
	uint8_t value[PAGE];
	struct waiter reader, other;

	waiter_start(&reader, t->ram.addr + (FROM + 3) * PAGE);
	if (!eventually(lacks_space, NULL, WAIT_MS))
		fail_msg("%s: nobody asks for space", t->what);
	contents_write(&contents, APART, 1, value);
	waiter_start(&other, t->ram.addr + APART * PAGE);
	assert_read(t, &other, value[0], "without space");
	assert_snapshot(t);
	assert_int_equal(atomic_load(&reader.signal), -1);
	assert_int_equal(held_bytes(&t->ram, BACKING_FD), LENGTH - GONE * PAGE);
	give_space_back(t);
	assert_read(t, &reader, 0, "with space again");
}

static void assert_right(struct trial *t)
{
	assert_zeroes(t->ram.addr + FROM * PAGE, GONE * PAGE, t->what);
	t->ram.addr[(FROM + 3) * PAGE] = 0x5a;
	assert_ok(hgm_region_prefetch(t->ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	assert_int_equal(t->ram.addr[(FROM + 3) * PAGE], 0x5a);
	assert_zeroes(t->ram.addr + (FROM + 3) * PAGE + 1, (GONE - 3) * PAGE - 1, t->what);
	assert_pages(&contents, 0, FROM, t->ram.addr);
	assert_pages(&contents, FROM + GONE, PAGES - FROM - GONE,
		     t->ram.addr + (FROM + GONE) * PAGE);
}

static void discard(struct trial *t, enum way way)
{
	assert_int_equal(take_space(t), 0);
	atomic_store(&refused, 0);
	discard_by(way, &t->ram, FROM * PAGE, GONE * PAGE);
	assert_int_equal(take_space(t), GONE);
}

static void *give_all(void *ledger)
{
	ledger_give(ledger, LEDGER_REQUESTS);
	return NULL;
}

static bool is_asked_for(void *ledger)
{
	return ledger_keeps(ledger, FROM) && ledger_keeps(ledger, FROM + GONE - 1);
}

/* The source answers for pages whose space another file has taken meanwhile. */
static const char *before_the_answer(enum way way)
{
	struct trial t;
	const char *lacking = begin(&t, "before the answer", way);
	pthread_t giver;

	if (lacking)
		return lacking;
	atomic_store(&t.ledger.keep, true);
	assert_ok(hgm_region_prefetch(t.ram.region, 0, ASKED * PAGE));
	assert_true(eventually(is_asked_for, &t.ledger, WAIT_MS));
	discard(&t, way);
	atomic_store(&t.ledger.keep, false);
	assert_int_equal(pthread_create(&giver, NULL, give_all, &t.ledger), 0);
	go_on_without(&t);
	pthread_join(giver, NULL);
	assert_right(&t);
	end(&t);
	return NULL;
}

/* The same for pages that have arrived. */
static const char *behind_the_answer(enum way way)
{
	struct trial t;
	const char *lacking = begin(&t, "behind the answer", way);

	if (lacking)
		return lacking;
	assert_ok(hgm_region_prefetch(t.ram.region, 0, LENGTH));
	assert_ok(hgm_wait(t.h, WAIT_MS));
	discard(&t, way);
	go_on_without(&t);
	assert_right(&t);
	end(&t);
	return NULL;
}

static void each(const char *(*one)(enum way way))
{
	static struct hgm_sys counting;
	const char *lacking = NULL;

	kernel = hgm_sys;
	counting = *kernel;
	counting.uffd_zeropage = count_refused;
	hgm_sys = &counting;
	for (enum way way = 0; way < WAYS && !lacking; way++)
		lacking = way_drops(way, BACKING_FD) ? one(way) : NULL;
	hgm_sys = kernel;
	if (lacking)
		test_skip("%s", lacking);
}

static void the_answer_finds_no_space(void **state)
{
	(void)state;
	each(before_the_answer);
}

static void what_has_arrived_finds_no_space(void **state)
{
	(void)state;
	each(behind_the_answer);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_answer_finds_no_space),
	cmocka_unit_test(what_has_arrived_finds_no_space),
};

TEST_MAIN(tests)
