/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that follows a script of range operations: each call must be the one that stands next in
 * it, and none may be left at the end.
 */
#ifndef HGM_TEST_RANGE_SCRIPT_H
#define HGM_TEST_RANGE_SCRIPT_H

#include <errno.h>
#include <string.h>

#include <hgm/error.h>

#include "kernel/sys.h"
#include "test.h"
#include "uffd/uffd.h"
#include "util/error.h"

enum request {
	R_CONTINUE = HGM_VERB_CONTINUE,
	R_COPY = HGM_VERB_COPY,
	R_ZEROPAGE = HGM_VERB_ZEROPAGE,
	R_POISON = HGM_VERB_POISON,
	R_WRITEPROTECT,
	R_WAKE,
};

#define VERBS 4

static const char *const names[] = {
	"UFFDIO_CONTINUE", "UFFDIO_COPY",	  "UFFDIO_ZEROPAGE",
	"UFFDIO_POISON",   "UFFDIO_WRITEPROTECT", "UFFDIO_WAKE",
};

#define BASE  ((char *)0x7f0000000000)
#define SRC   ((const char *)0x600000000000)
#define PAGE  UINT64_C(4096)
#define MIB_2 (UINT64_C(2) << 20)
#define GIB_1 (UINT64_C(1) << 30)
#define FD    7

/* The result field stays as the caller had set it: kernels before late 2025 do that. */
#define UNTOUCHED INT64_MIN

/* Places and lengths are counted in steps of the range; so is a positive result. */
static struct expected {
	enum request request;
	uint64_t at;
	uint64_t count;
	int rc;
	int64_t result;
} script[64];

static unsigned int script_length;
static unsigned int script_at;
static struct hgm_range range;
static struct hgm_uffd uffd = { .fd = FD };

static inline int next_call(enum request request, int fd, const char *addr, uint64_t len,
			    uint64_t mode, int64_t *result)
{
	const struct expected *e = &script[script_at];

	if (script_at == script_length)
		fail_msg("%s of %#llx at +%#llx was not expected", names[request],
			 (unsigned long long)len, (unsigned long long)(addr - BASE));
	script_at++;
	assert_int_equal(fd, FD);
	assert_string_equal(names[request], names[e->request]);
	assert_int_equal(addr - BASE, e->at * range.step);
	assert_int_equal(len, e->count * range.step);
	if (request == R_WAKE)
		return e->rc;
	assert_int_equal(mode, range.mode);
	if (result && e->result != UNTOUCHED)
		*result = e->result > 0 ? e->result * (int64_t)range.step : e->result;
	return e->rc;
}

static inline int fake_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return next_call(R_CONTINUE, fd, addr, len, mode, done);
}

static inline int fake_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
			    int64_t *done)
{
	assert_ptr_equal(src, SRC + ((char *)dst - BASE));
	return next_call(R_COPY, fd, dst, len, mode, done);
}

static inline int fake_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return next_call(R_ZEROPAGE, fd, addr, len, mode, done);
}

static inline int fake_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	return next_call(R_POISON, fd, addr, len, mode, done);
}

static inline int fake_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode)
{
	return next_call(R_WRITEPROTECT, fd, addr, len, mode, NULL);
}

static inline int fake_wake(int fd, void *addr, uint64_t len)
{
	return next_call(R_WAKE, fd, addr, len, 0, NULL);
}

/* Whatever else is called ends the program. */
static const struct hgm_sys fake_sys = {
	.uffd_continue = fake_continue,
	.uffd_copy = fake_copy,
	.uffd_zeropage = fake_zeropage,
	.uffd_poison = fake_poison,
	.uffd_writeprotect = fake_writeprotect,
	.uffd_wake = fake_wake,
};

static inline void begin(uint64_t step, uint64_t count, uint64_t mode)
{
	hgm_sys = &fake_sys;
	script_length = script_at = 0;
	range = (struct hgm_range){
		.addr = BASE,
		.len = count * step,
		.step = step,
		.mode = mode,
		.done = 77, /* out fields are set, not added to */
		.installed = 77,
		.existed = 77,
		.partials = 77,
	};
	hgm_fail(0, "before");
}

static inline void expect(enum request request, uint64_t at, uint64_t count, int rc, int64_t result)
{
	assert_true(script_length < sizeof(script) / sizeof(script[0]));
	script[script_length++] = (struct expected){ request, at, count, rc, result };
}

static inline int call(enum request request)
{
	switch (request) {
	case R_CONTINUE:
		return hgm_uffd_continue(&uffd, &range);
	case R_COPY:
		return hgm_uffd_copy(&uffd, &range, SRC);
	case R_ZEROPAGE:
		return hgm_uffd_zeropage(&uffd, &range);
	case R_POISON:
		return hgm_uffd_poison(&uffd, &range);
	default:
		return hgm_uffd_writeprotect(&uffd, &range);
	}
}

/* What came of it, in steps. */
static inline void check(int got, int rc, uint64_t installed, uint64_t existed, uint64_t partials)
{
	if (script_at != script_length)
		fail_msg("%s of %llu steps at step %llu was not called",
			 names[script[script_at].request],
			 (unsigned long long)script[script_at].count,
			 (unsigned long long)script[script_at].at);
	assert_int_equal(got, rc);
	assert_int_equal(range.installed, installed * range.step);
	assert_int_equal(range.existed, existed * range.step);
	assert_int_equal(range.done, range.installed + range.existed);
	assert_int_equal(range.partials, partials);
	if (rc != -EINVAL)
		assert_string_equal(hgm_errmsg(), "before");
}

#endif
