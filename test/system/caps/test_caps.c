/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The capability table on the running kernel. Its answers depend on the kernel. On every kernel
 * they must agree with each other, and the probe must leave nothing behind.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hgm/caps.h>
#include <hgm/uapi.h>

#include "caps_answers.h"
#include "kernel/sys.h"
#include "leaks.h"
#include "test.h"

static uint64_t value(const struct hgm_caps *caps, const char *name)
{
	return hgm_caps_find(caps, name)->value;
}

/*
 * All of @names, which end with NULL. A probe may be told to try again later, so it gets a few
 * chances to find a definite answer.
 */
static void assert_yes(const char *const *names, unsigned int flags)
{
	char reason[512] = "";

	for (int i = 0; i < 5; i++) {
		struct hgm_caps *caps = probe(flags);
		const char *const *name = names;
		uint32_t got = HGM_YES;

		while (*name && (got = answer(caps, *name)) == HGM_YES)
			name++;
		if (*name)
			snprintf(reason, sizeof(reason), "%s: %s", *name,
				 hgm_caps_find(caps, *name)->reason);
		hgm_caps_free(caps);
		if (got == HGM_YES)
			return;
		if (got != HGM_UNPROVEN)
			break;
		usleep(20000);
	}
	fail_msg("%s", reason);
}

static void answers_are_whole(void **state)
{
	struct hgm_caps *caps = probe(0);

	(void)state;
	for (unsigned int i = 0; i < hgm_caps_count(caps); i++) {
		const struct hgm_cap *cap = hgm_caps_at(caps, i);

		assert_uint_in_range(cap->answer, HGM_NO, HGM_UNPROVEN);
		assert_true(strlen(cap->reason) > 10);
		assert_int_equal(cap->name[strspn(cap->name, "abcdefghijklmnopqrstuvwxyz0123456789"
							     "._")],
				 '\0');
	}
	hgm_caps_free(caps);
}

/* A capability must be found to work exactly if the kernel shows its feature bit. */
static void feature_bits_and_answers_agree(void **state)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} pairs[] = {
		{ HGM_UFFD_FEATURE_EXACT_ADDRESS, "uffd.exact_address" },
		{ HGM_UFFD_FEATURE_THREAD_ID, "uffd.thread_id" },
		{ HGM_UFFD_FEATURE_WP_ASYNC, "uffd.wp_async" },
		{ HGM_UFFD_FEATURE_PAGEFAULT_FLAG_WP, "anon.wp.4k" },
		{ HGM_UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "shmem.wp.4k" },
		{ HGM_UFFD_FEATURE_MISSING_SHMEM, "shmem.missing.4k" },
		{ HGM_UFFD_FEATURE_MINOR_SHMEM, "shmem.minor.4k" },
		{ HGM_UFFD_FEATURE_POISON, "anon.poison.4k" },
		{ HGM_UFFD_FEATURE_POISON, "shmem.poison.4k" },
		{ HGM_UFFD_FEATURE_MOVE, "anon.move.4k" },
		{ HGM_UFFD_FEATURE_RWP, "anon.rwp.4k" },
		{ HGM_UFFD_FEATURE_RWP, "shmem.rwp.4k" },
		{ HGM_UFFD_FEATURE_RWP_ASYNC, "uffd.rwp_async" },
		{ HGM_UFFD_FEATURE_RWP_ASYNC, "uffd.set_mode" },
		{ HGM_UFFD_FEATURE_RWP_ASYNC, "pagemap.accessed" },
	};
	struct hgm_caps *caps = probe(0);
	uint64_t features = value(caps, "uffd.features");

	(void)state;
	if (answer(caps, "uffd.features") != HGM_YES) {
		char reason[512];

		snprintf(reason, sizeof(reason), "%s",
			 hgm_caps_find(caps, "uffd.features")->reason);
		hgm_caps_free(caps);
		test_skip("no userfaultfd here: %s", reason);
	}
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (features & pairs[i].bit)
			assert_yes((const char *const[]){ pairs[i].name, NULL }, 0);
		else
			assert_int_equal(answer(caps, pairs[i].name), HGM_NO);
	}
	/* No kernel has this up to now, because private memory has no page cache. */
	assert_int_equal(answer(caps, "anon.minor.4k"), HGM_NO);
	hgm_caps_free(caps);
}

/* Without a guest_memfd, all rows say why there is none. With one, userfaultfd may serve it. */
static void guest_memfd(void **state)
{
	struct hgm_caps *caps = probe(0);
	uint32_t mmap = answer(caps, "guest_memfd.mmap");
	uint32_t missing = answer(caps, "guest_memfd.missing.4k");
	uint32_t minor = answer(caps, "guest_memfd.minor.4k");
	bool device = !access("/dev/kvm", F_OK);

	(void)state;
	if (mmap == HGM_YES) {
		assert_true(device);
		assert_uint_in_range(missing, HGM_NO, HGM_YES);
		assert_uint_in_range(minor, HGM_NO, HGM_YES);
	} else {
		assert_int_equal(missing, mmap);
		assert_int_equal(minor, mmap);
		assert_non_null(strcasestr(hgm_caps_find(caps, "guest_memfd.mmap")->reason, "kvm"));
		if (!device)
			assert_int_equal(mmap, HGM_UNPROVEN);
	}
	hgm_caps_free(caps);
}

static void nothing_is_left_behind(void **state)
{
	struct holdings before;

	(void)state;
	/* In the first run the C library maps memory that it then keeps (a thread's stack). */
	hgm_caps_free(probe(0));
	before = take_holdings();
	for (int i = 0; i < 5; i++)
		hgm_caps_free(probe(0));
	assert_same_holdings(&before);
}

/* An independent look that does not use the caps. */
static long free_huge_pages(void)
{
	int fd =
		hgm_sys->open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", O_RDONLY);
	char text[32] = "";

	if (fd < 0)
		return -1;
	hgm_sys->read(fd, text, sizeof(text) - 1);
	hgm_sys->close(fd);
	return *text ? strtol(text, NULL, 10) : -1;
}

/* Other processes use the pool, too. In one of these tries none of them interferes. */
#define TRIES 50

static void huge_pages_are_taken_and_given_back(void **state)
{
	static const char *const blocks[] = { "hugetlb.2m.missing.block", "hugetlb.2m.minor.block",
					      NULL };
	struct holdings before;
	struct hgm_caps *caps;
	bool right = false;

	(void)state;
	if (free_huge_pages() < 1)
		test_skip("no free huge page of 2 MiB; ./run setup reserves some");
	caps = probe(0);
	if (answer(caps, "uffd.features") != HGM_YES) {
		hgm_caps_free(caps);
		test_skip("no userfaultfd here");
	}
	hgm_caps_free(caps);
	before = take_holdings();
	for (int tries = 0; tries < TRIES && !right; tries++) {
		long nfree = free_huge_pages();
		int64_t told;

		caps = probe(0);
		told = value(caps, "hugetlb.2m");
		assert_int_equal(answer(caps, "hugetlb.2m.missing.block"), HGM_UNPROVEN);
		hgm_caps_free(caps);
		assert_yes(blocks, HGM_CAPS_USE_HUGE_PAGES);
		right = told == nfree && free_huge_pages() == nfree;
	}
	assert_same_holdings(&before);
	assert_true(right);
}

/* Runs in its own child process. Returns 0 if all is as it must be. */
static int probe_as_nobody(void)
{
	struct hgm_caps *caps;

	if (setgid(65534) || setuid(65534))
		return 1;
	if (hgm_caps_probe(&caps, 0))
		return 2;
	if (hgm_caps_find(caps, "uffd.device")->answer == HGM_YES)
		return 3;
	if (hgm_caps_find(caps, "uffd.syscall")->answer == HGM_NO)
		return 4;
	/* User-mode faults need no privilege, and their verbs are the same. */
	if (hgm_caps_find(caps, "uffd.user_mode_only")->answer == HGM_YES &&
	    hgm_caps_find(caps, "anon.missing.4k")->answer != HGM_YES)
		return 5;
	hgm_caps_free(caps);
	return 0;
}

static void without_privilege(void **state)
{
	struct hgm_caps *caps = probe(0);
	bool available = answer(caps, "uffd.syscall") == HGM_YES;
	struct stat st;
	int status;
	pid_t pid;

	(void)state;
	hgm_caps_free(caps);
	if (getuid() != 0)
		test_skip("only root can become somebody without privilege");
	if (!available)
		test_skip("userfaultfd(2) cannot be had here even by root");
	if (!stat("/dev/userfaultfd", &st) && (st.st_mode & 07777) != 0600)
		test_skip("/dev/userfaultfd is open to all users here");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(probe_as_nobody());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(answers_are_whole),
	cmocka_unit_test(feature_bits_and_answers_agree),
	cmocka_unit_test(guest_memfd),
	cmocka_unit_test(nothing_is_left_behind),
	cmocka_unit_test(huge_pages_are_taken_and_given_back),
	cmocka_unit_test(without_privilege),
};

TEST_MAIN(tests)
