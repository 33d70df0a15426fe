/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A life of everything that the library makes, over and over: each time the next piece of memory,
 * thread, mapping or descriptor that it asks for is refused. The call that needed it says so, or
 * does without; made again it succeeds; contents are right in the end, and nothing is left behind.
 */
#include "harness.h"
#include "refusal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH	   (2 * MIB)
#define PAGES	   (LENGTH / PAGE)
#define WAIT_MS	   SMALLER(20000, 100000)
#define ROUNDS_MAX 2000 /* no life needs so much */

static enum refusal what; /* is refused at the moment */
static unsigned int nth;
static unsigned char *expected;
static int file; /* that holds the same */
static unsigned int refused_calls;
static bool have_pool; /* of huge pages */

/* False: it was refused, in due form. */
static bool went(int rc, const char *call)
{
	if (!rc)
		return true;
	if (rc != refusal_errors[what])
		fail_msg("%s %u refused: %s: %s: %s", refusal_names[what], nth, call,
			 strerrorname_np(-rc), hgm_errmsg());
	if (strlen(hgm_errmsg()) < 15)
		fail_msg("%s %u refused: %s says only '%s'", refusal_names[what], nth, call,
			 hgm_errmsg());
	refused_calls++;
	return false;
}

/* There is one refusal: what has had it can be done now. */
#define twice(call)                                                                             \
	do {                                                                                    \
		hgm_fail(0, "%s", "");                                                          \
		if (!went(call, #call) && (call))                                               \
			fail_msg("%s %u refused: %s: then %s", refusal_names[what], nth, #call, \
				 hgm_errmsg());                                                 \
	} while (0)

static int64_t give(void *user, const struct hgm_io *io)
{
	(void)user;
	memcpy(io->buf, expected + io->offset, io->length);
	return (int64_t)io->length;
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	return !memcmp(buf, expected + offset, length) ? (int64_t)length : -EILSEQ;
}

static void right(struct hgm_region *r, const char *when)
{
	if (memcmp(hgm_region_addr(r), expected, LENGTH) != 0)
		fail_msg("%s %u refused: %s: a byte is wrong", refusal_names[what], nth, when);
}

static void sources(void)
{
	struct hgm_source *src;

	twice(hgm_source_fn(&src, give, NULL, NULL));
	hgm_source_destroy(src);
	twice(hgm_source_memory(&src, expected, LENGTH));
	hgm_source_destroy(src);
	twice(hgm_source_file(&src, "/proc/self/exe"));
	hgm_source_destroy(src);
	twice(hgm_source_fd(&src, file));
	hgm_source_destroy(src);
}

static void thin_level(void)
{
	uint64_t huge;
	struct hgm_uffd *u;

	twice(hgm_uffd_open(&u, NULL));
	hgm_uffd_close(u);
	twice(hgm_mapped_huge(expected, LENGTH, &huge));
}

static void capabilities(void)
{
	struct hgm_caps *caps;

	twice(hgm_caps_probe(&caps, 0));
	hgm_caps_free(caps);
}

static struct hgm *make_engine(void)
{
	struct hgm_opts opts = { .size = sizeof(opts), .fault_threads = 1, .workers = 2 };
	struct hgm *h;

	twice(hgm_create(&h, &opts));
	return h;
}

static void restore(uint32_t backing, struct hgm_source *src)
{
	struct hgm_region_opts ro = {
		.size = sizeof(ro),
		.length = LENGTH,
		.source = src,
		.backing = backing,
		.fd = backing == HGM_BACKING_FD ? file : 0,
	};
	uint64_t bitmap[PAGES / 64] = { 0x5a };
	struct hgm *h = make_engine();
	struct hgm_region *r;

	twice(hgm_region_create(&r, h, &ro));
	if (backing == HGM_BACKING_FD)
		twice(hgm_region_import(r, 0, PAGES, bitmap));
	twice(hgm_region_prefetch(r, LENGTH / 2, PAGE));
	twice(hgm_start(h));
	right(r, "restored");
	assert_ok(hgm_wait(h, WAIT_MS));
	hgm_destroy(h);
}

static void restores(void)
{
	/* The first is imported to, which is the first to need leaves. */
	static const uint32_t backings[] = { HGM_BACKING_FD, HGM_BACKING_SHMEM,
					     HGM_BACKING_SHMEM_LAZY, HGM_BACKING_ANON };
	struct hgm_source *src;

	twice(hgm_source_fn(&src, give, NULL, NULL));
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		restore(backings[i], src);
	if (have_pool)
		restore(HGM_BACKING_HUGETLB, src);
	hgm_source_destroy(src);
}

static int snapshot(struct hgm *h)
{
	struct hgm_snapshot_opts so = { .size = sizeof(so), .write = take };
	struct hgm_snapshot *s;
	int rc = hgm_snapshot_create(&s, h, &so);

	if (rc)
		return rc;
	rc = hgm_snapshot_begin(s);
	if (!rc)
		rc = hgm_snapshot_wait(s, WAIT_MS);
	hgm_snapshot_destroy(s);
	return rc;
}

static void guarded(uint32_t backing, struct hgm_source *src)
{
	struct hgm_region_opts ro = {
		.size = sizeof(ro), .length = LENGTH, .source = src, .backing = backing
	};
	uint64_t bitmap[PAGES / 64], found;
	struct hgm *h = make_engine();
	struct hgm_region *r;
	struct hgm_dirty *d;
	volatile unsigned char *at;

	twice(hgm_region_create(&r, h, &ro));
	twice(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	at = hgm_region_addr(r);

	twice(hgm_region_watch(r, NULL));
	twice(hgm_region_protect(r, 0, LENGTH, 0, NULL));
	*at = *at;
	twice(hgm_region_unprotect(r, 0, LENGTH, 0, NULL));
	twice(hgm_region_unwatch(r));

	twice(hgm_dirty_start(&d, r, NULL));
	twice(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	at[5 * PAGE] = at[5 * PAGE];
	twice(hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	if (!(bitmap[0] >> 5 & 1))
		fail_msg("%s %u refused: a write is not noted", refusal_names[what], nth);
	hgm_dirty_stop(d);

	twice(snapshot(h));
	right(r, "guarded");
	assert_ok(hgm_wait(h, WAIT_MS));
	hgm_destroy(h);
}

static void guards(void)
{
	struct hgm_source *src;

	twice(hgm_source_fn(&src, give, NULL, NULL));
	guarded(HGM_BACKING_SHMEM, src);
	guarded(HGM_BACKING_ANON, src);
	if (have_pool)
		guarded(HGM_BACKING_HUGETLB, src);
	hgm_source_destroy(src);
}

struct remains {
	struct holdings before;
	long pieces;
	int64_t mapped;
};

/* What is freed behind a grace period takes a moment. */
static bool nothing_remains(void *arg)
{
	const struct remains *r = arg;
	struct holdings now = take_holdings();

	return now.descriptors == r->before.descriptors && now.threads == r->before.threads &&
	       refusal_pieces() == r->pieces && refusal_mapped() == r->mapped;
}

static void live(void (*life)(void), enum refusal refusal, unsigned int *calls)
{
	/* An emulated machine has no time for more than a sample. */
	unsigned int step = getenv("HGM_TEST_SLOW") ? 7 : 1;
	struct remains r;
	bool refused = true;

	what = refusal;
	refused_calls = 0;
	for (nth = 0; refused && nth < ROUNDS_MAX; nth += step) {
		r = (struct remains){ take_holdings(), refusal_pieces(), refusal_mapped() };
		refusal_arm(what, nth);
		life();
		refused = refusal_disarm();
		if (!eventually(nothing_remains, &r, 5000))
			fail_msg("%s %u refused: %d descriptors, %d threads, %ld pieces, %" PRId64
				 " bytes are left over",
				 refusal_names[what], nth,
				 (int)(take_holdings().descriptors - r.before.descriptors),
				 (int)(take_holdings().threads - r.before.threads),
				 refusal_pieces() - r.pieces, refusal_mapped() - r.mapped);
	}
	assert_false(refused);
	*calls += refused_calls;
}

static void lives(void (*life)(void), const char *name)
{
	unsigned int calls[REFUSALS] = { 0 };

	watch(name, 100 * slowness());
	life(); /* what is made once and for all */
	for (enum refusal refusal = 0; refusal < REFUSALS; refusal++)
		live(life, refusal, &calls[refusal]);
	print_message("%s: calls refused for memory %u, threads %u, mappings %u, descriptors %u, "
		      "leaves %u\n",
		      name, calls[0], calls[1], calls[2], calls[3], calls[4]);
	assert_true(calls[REFUSE_MEMORY]);
	calm();
}

/* It brings the thread that frees memory, for all that come after it. */
static void the_first_engine(void **state)
{
	struct hgm *h;

	(void)state;
	refusal_arm(REFUSE_THREAD, 0);
	assert_error(hgm_create(&h, NULL), -EAGAIN);
	assert_true(refusal_disarm());
	assert_ok(hgm_create(&h, NULL));
	hgm_destroy(h);
}

#define LIVES(life)                         \
	static void of_##life(void **state) \
	{                                   \
		(void)state;                \
		lives(life, #life);         \
	}

LIVES(sources)
LIVES(thin_level)
LIVES(capabilities)
LIVES(restores)
LIVES(guards)

static int make(void **state)
{
	(void)state;
	have_pool = !place_lacking(PLACE_HUGETLB_2M, LENGTH);
	refusal_begin();
	file = memfd_create("contents", MFD_CLOEXEC);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, LENGTH), 0);
	expected = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_true(expected != MAP_FAILED);
	for (size_t i = 0; i < LENGTH; i++)
		expected[i] = (unsigned char)(i / PAGE + i % 247 + 1);
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_first_engine), /* is the first */
	cmocka_unit_test(of_sources),	    cmocka_unit_test(of_thin_level),
	cmocka_unit_test(of_capabilities),  cmocka_unit_test(of_restores),
	cmocka_unit_test(of_guards),
};

int main(void)
{
	return cmocka_run_group_tests(tests, make, NULL);
}
