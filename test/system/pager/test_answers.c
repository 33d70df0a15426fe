/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Answers that come twice, from inside the read function, for requests that were never made, or not
 * at all. Each request is answered once. Surplus answers are refused with a text.
 */
#include "harness.h"

#include <errno.h>
#include <signal.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(2 * MIB + 64 * PAGE)

static const struct contents contents = { .seed = 6 };

/* Answers from inside the read function, twice, and for requests that were never made. */
static _Atomic int second_answer, wrong_answer, foreign_answer;

static int64_t answers_twice(void *user, const struct hgm_io *io)
{
	struct hgm_io other = *io;

	(void)user;
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	other.id += UINT64_C(1) << 40;
	atomic_store(&foreign_answer, hgm_io_done(&other, (int64_t)io->length));
	if (io->offset / PAGE % 3 == 0) {
		other = *io;
		if (hgm_io_done(&other, (int64_t)other.length))
			atomic_store(&second_answer, 1);
		atomic_store(&second_answer, hgm_io_done(&other, -EIO));
		/* The request is answered already. What is returned now must not count. */
		return other.offset / PAGE % 2 ? HGM_IO_LATER : -EIO;
	}
	return (int64_t)io->length;
}

static void answers_count_once(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct plan plan = { .contents = &contents, .pages = LENGTH / PAGE };
		struct hgm_source *src;
		struct touchers touchers;
		struct hgm *h = engine(1);
		struct ram ram;

		watch("answers twice", 60);
		assert_ok(hgm_source_fn(&src, answers_twice, NULL, NULL));
		ram_make(&ram, h, backings[i], LENGTH, src, HGM_REGION_NO_FILL);
		plan.addr = ram.addr;
		assert_ok(hgm_start(h));
		touchers_start(&touchers, 4, &plan);
		touchers_join(&touchers);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_int_equal(second_answer, -EALREADY);
		assert_int_equal(foreign_answer, -EINVAL);
		assert_int_equal(stats_of(h).source_errors, 0);
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		calm();
	}
}

/* A result that is no possible answer is refused, and counts as a failure. */
static int64_t answers_wrongly(void *user, const struct hgm_io *io)
{
	struct hgm_io copy = *io;

	(void)user;
	contents_write(&contents, io->offset / PAGE, io->length / PAGE, io->buf);
	if (copy.attempt)
		return (int64_t)copy.length;
	atomic_store(&wrong_answer,
		     hgm_io_done(&copy, copy.offset / PAGE % 2 ? (int64_t)copy.length + 4096
							       : HGM_IO_LATER));
	return HGM_IO_LATER;
}

static bool was_refused(void *arg)
{
	(void)arg;
	return atomic_load(&wrong_answer) == -EINVAL;
}

static void impossible_answers_fail(void **state)
{
	struct hgm_source *src;
	struct hgm *h = engine(1);
	struct ram ram;
	uint8_t value;

	(void)state;
	watch("impossible answers", 60);
	assert_ok(hgm_source_fn(&src, answers_wrongly, NULL, NULL));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	for (uint64_t p = 0; p < 6; p++) {
		atomic_store(&wrong_answer, 0);
		assert_int_equal(touch(ram.addr + p * PAGE, &value), 0);
		/* Another thread may have brought the page before the refusal was returned. */
		assert_true(eventually(was_refused, NULL, WAIT_MS));
	}
	assert_pages(&contents, 0, 6, ram.addr);
	assert_int_equal(stats_of(h).source_errors, 6);
	assert_error(hgm_io_done(NULL, 0), -EINVAL);
	assert_error(hgm_io_done(&(struct hgm_io){ .engine = h, .length = PAGE }, PAGE), -EINVAL);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

/*
 * A cancellation may come before the source has recorded the request. It is then for an id that the
 * source does not know. The region must end all the same.
 */
struct slow_note {
	struct hgm_io io;
	_Atomic bool inside, noted;
};

static int64_t notes_slowly(void *user, const struct hgm_io *io)
{
	struct slow_note *n = user;

	atomic_store(&n->inside, true);
	nap_us(100000);
	n->io = *io;
	atomic_store(&n->noted, true);
	return HGM_IO_LATER;
}

static void cancel_noted(void *user, struct hgm *h, uint64_t id)
{
	struct slow_note *n = user;

	(void)h;
	if (atomic_load(&n->noted) && n->io.id == id && atomic_exchange(&n->noted, false))
		hgm_io_done(&n->io, -ECANCELED);
}

static bool is_inside(void *arg)
{
	return atomic_load(&((struct slow_note *)arg)->inside);
}

static void cancel_crosses_the_question(void **state)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .cancel = cancel_noted };
	struct slow_note note = { .inside = false };
	struct hgm_source *src;
	struct hgm *h = engine(1);
	struct waiter waiter;
	struct ram ram;

	(void)state;
	watch("hgm_region_destroy(): a request whose cancellation crossed the question", 5);
	assert_ok(hgm_source_fn(&src, notes_slowly, &note, &opts));
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&waiter, ram.addr);
	assert_true(eventually(is_inside, &note, 5000));
	ram_end(&ram);
	waiter_join(&waiter);
	assert_int_equal(waiter.signal, SIGSEGV);
	hgm_destroy(h);
	hgm_source_destroy(src);
	calm();
}

static const struct contents holey = { .seed = 7, .holes = true };

static uint64_t count_holes(uint64_t pages)
{
	uint64_t n = 0;

	for (uint64_t page = 0; page < pages; page++)
		n += contents_hole(&holey, page);
	return n;
}

/* The first attempt leaves garbage in the buffer. Some answers are short. */
static int64_t answers_sparsely(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE, zeroes[8] = { 0 };
	struct hgm_io copy = *io;

	(void)user;
	if (!copy.attempt && page % 5 == 0) {
		memset(copy.buf, 0x66, copy.length);
		assert_ok(hgm_io_done(&copy, -EAGAIN));
		return HGM_IO_LATER;
	}
	if (pages > 3 && page % 3 == 0)
		pages -= 2;
	for (uint64_t i = 0; i < pages; i++) {
		if (contents_hole(&holey, page + i))
			zeroes[i / 64] |= UINT64_C(1) << i % 64;
		else
			contents_write(&holey, page + i, 1, (char *)copy.buf + i * PAGE);
	}
	assert_ok(hgm_io_done_sparse(&copy, pages * PAGE, zeroes));
	return HGM_IO_LATER;
}

static void some_pages_are_zero(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM,	  BACKING_SHMEM_LAZY,
						 BACKING_ANON,	  BACKING_FD,
						 BACKING_MAPPING, BACKING_MAPPING_ANON,
						 BACKING_FD_LAZY, BACKING_HUGETLB_2M };
	uint64_t none = 0;
	struct hgm_io io = { 0 };

	(void)state;
	assert_error(hgm_io_done_sparse(&io, PAGE, NULL), -EINVAL);
	assert_error(hgm_io_done_sparse(&io, PAGE, &none), -EINVAL);
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		uint64_t length = backings[i] >= BACKINGS_SMALL ? 4 * MIB : LENGTH;
		struct hgm_source *src;
		struct hgm *h;
		struct ram ram;

		if (backing_lacking(backings[i], length))
			continue;
		watch(backing_names[backings[i]], 60);
		h = engine(1);
		assert_ok(hgm_source_fn(&src, answers_sparsely, NULL, NULL));
		ram_make(&ram, h, backings[i], length, src, 0);
		assert_ok(hgm_start(h));
		assert_pages(&holey, 0, 10, ram.addr);
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&holey, 0, length / PAGE, ram.addr);
		assert_int_equal(stats_of(h).zero_pages, count_holes(length / PAGE));
		ram_end(&ram);
		hgm_destroy(h);
		hgm_source_destroy(src);
		calm();
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(answers_count_once),
	cmocka_unit_test(impossible_answers_fail),
	cmocka_unit_test(some_pages_are_zero),
	cmocka_unit_test(cancel_crosses_the_question),
};

TEST_MAIN(tests)
