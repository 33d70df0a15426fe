/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registering memory again, for less than before: whether the kernel refuses it (7.3) or not, a
 * write-protected page stays so until it is unregistered.
 */
#include "harness.h"

#include <errno.h>
#include <sys/mman.h>

#include "kernel/sys.h"

#define LENGTH (16 * PAGE)

struct memory {
	struct hgm_uffd *u;
	unsigned char *at;
};

static struct memory begin(int flags, uint64_t needed)
{
	struct hgm_uffd_opts opts = { .size = sizeof(opts), .optional = needed };
	struct memory m;

	assert_ok(hgm_uffd_open(&m.u, &opts));
	if (hgm_uffd_features(m.u) != needed) {
		hgm_uffd_close(m.u);
		test_skip("this kernel has no write-protection of this memory");
	}
	m.at = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m.at, MAP_FAILED);
	memset(m.at, 1, LENGTH);
	return m;
}

static int protect(const struct memory *m)
{
	struct hgm_range r = {
		.addr = m->at,
		.len = LENGTH,
		.step = PAGE,
		.mode = HGM_UFFD_WP_PROTECT,
	};

	return hgm_uffd_writeprotect(m->u, &r);
}

static bool is_protected(const void *at)
{
	uint64_t word = 0;
	int fd = hgm_sys->open("/proc/self/pagemap", 0);

	assert_true(fd >= 0);
	assert_int_equal(hgm_sys->pread(fd, &word, 8, (uintptr_t)at / PAGE * 8), 8);
	hgm_sys->close(fd);
	return word >> 57 & 1;
}

static void register_for_less(struct memory *m)
{
	int rc;

	assert_ok(hgm_uffd_register(m->u, m->at, LENGTH, HGM_UFFD_MISSING | HGM_UFFD_WP, NULL));
	assert_ok(protect(m));
	rc = hgm_uffd_register(m->u, m->at, LENGTH, HGM_UFFD_MISSING, NULL);
	if (rc) {
		assert_int_equal(rc, -EBUSY);
		assert_non_null(strstr(hgm_errmsg(), "write-protection"));
	}
	assert_true(is_protected(m->at));
	assert_ok(protect(m));
	assert_ok(hgm_uffd_unregister(m->u, m->at, LENGTH));
	assert_ok(hgm_uffd_register(m->u, m->at, LENGTH, HGM_UFFD_MISSING, NULL));
	assert_false(is_protected(m->at));
	assert_int_equal(protect(m), -ENOENT);
	hgm_uffd_close(m->u);
	memset(m->at, 2, LENGTH);
	munmap(m->at, LENGTH);
}

static void anonymous(void **state)
{
	struct memory m = begin(MAP_PRIVATE, HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	(void)state;
	register_for_less(&m);
}

static void shared(void **state)
{
	struct memory m = begin(MAP_SHARED, HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP |
						    HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM);

	(void)state;
	register_for_less(&m);
}

/* What the kernel does not know, it refuses, and the text has what was asked for. */
static void unknown_features(void **state)
{
	struct hgm_uffd_opts opts = { .size = sizeof(opts), .required = UINT64_C(1) << 60 };
	struct hgm_uffd *u;

	(void)state;
	assert_error(hgm_uffd_open(&u, &opts), -EOPNOTSUPP);
	assert_non_null(strstr(hgm_errmsg(), "0x1000000000000000"));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(anonymous),
	cmocka_unit_test(shared),
	cmocka_unit_test(unknown_features),
};

TEST_MAIN(tests)
