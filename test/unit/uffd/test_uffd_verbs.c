/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registering, waking and reading messages: which calls reach the kernel in which order, what they
 * return, and the text for a failure.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>

#include <hgm/error.h>

#include "kernel/sys.h"
#include "test.h"
#include "uffd/uffd.h"
#include "util/error.h"

#define ADDR ((void *)0x7f0000200000)
#define LEN  UINT64_C(0x200000)
#define FD   5

static struct {
	int rc;	     /* of register, unregister */
	int wake_rc; /* of wake */
	char calls[8];
	unsigned int messages; /* waiting */
	ssize_t read_rc;       /* not 0: result of read instead */
	struct uffd_msg msg[100];
} k;

static struct hgm_uffd uffd = { .fd = FD };

static void note(char call, int fd, const void *addr, uint64_t len)
{
	assert_int_equal(fd, FD);
	assert_ptr_equal(addr, ADDR);
	assert_int_equal(len, LEN);
	k.calls[strlen(k.calls)] = call;
}

static int fake_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	note('r', fd, addr, len);
	assert_int_equal(modes, HGM_UFFD_MISSING | HGM_UFFD_MINOR);
	*ioctls = k.rc ? 0 : 0x1bc;
	return k.rc;
}

static int fake_unregister(int fd, void *addr, uint64_t len)
{
	note('u', fd, addr, len);
	return k.rc;
}

static int fake_wake(int fd, void *addr, uint64_t len)
{
	note('w', fd, addr, len);
	return k.wake_rc;
}

static ssize_t fake_read(int fd, void *buf, size_t len)
{
	size_t n = len / sizeof(k.msg[0]);

	assert_int_equal(fd, FD);
	if (k.read_rc)
		return k.read_rc > 0 ? k.read_rc - 1 : k.read_rc;
	if (!k.messages)
		return -EAGAIN;
	n = n < k.messages ? n : k.messages;
	memcpy(buf, k.msg, n * sizeof(k.msg[0]));
	k.messages -= (unsigned int)n;
	return (ssize_t)(n * sizeof(k.msg[0]));
}

static const struct hgm_sys fake_sys = {
	.uffd_register = fake_register,
	.uffd_unregister = fake_unregister,
	.uffd_wake = fake_wake,
	.read = fake_read,
};

static int begin(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	hgm_sys = &fake_sys;
	return 0;
}

static void says(const char *word)
{
	if (!strstr(hgm_errmsg(), word))
		fail_msg("\"%s\" does not say \"%s\"", hgm_errmsg(), word);
}

static void register_tells_what_is_offered(void **state)
{
	uint64_t ioctls = 77;

	(void)state;
	assert_int_equal(
		hgm_uffd_register(&uffd, ADDR, LEN, HGM_UFFD_MISSING | HGM_UFFD_MINOR, &ioctls), 0);
	assert_int_equal(ioctls, 0x1bc);
	assert_int_equal(
		hgm_uffd_register(&uffd, ADDR, LEN, HGM_UFFD_MISSING | HGM_UFFD_MINOR, NULL), 0);
	assert_string_equal(k.calls, "rr");
}

static void register_says_why_not(void **state)
{
	static const struct {
		int rc;
		const char *why;
	} cases[] = {
		{ -EBUSY, "another userfaultfd" },
		{ -EPERM, "read-only" },
		{ -EINVAL, "aligned" },
		{ -ENOMEM,
		  "ENOMEM (out of memory, or the process has reached the limit vm.max_map_count" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ioctls = 77;

		k.rc = cases[i].rc;
		assert_int_equal(hgm_uffd_register(&uffd, ADDR, LEN,
						   HGM_UFFD_MISSING | HGM_UFFD_MINOR, &ioctls),
				 cases[i].rc);
		assert_int_equal(ioctls, 0);
		says("UFFDIO_REGISTER");
		says("2097152 bytes");
		says(cases[i].why);
	}
}

/* The kernel wakes no minor waiter here, and more could queue before it returns. */
static void unregister_wakes_afterwards(void **state)
{
	(void)state;
	assert_int_equal(hgm_uffd_unregister(&uffd, ADDR, LEN), 0);
	assert_string_equal(k.calls, "uw");
	begin(NULL);
	k.wake_rc = -EINVAL; /* the library cannot do anything about that */
	assert_int_equal(hgm_uffd_unregister(&uffd, ADDR, LEN), 0);
	begin(NULL);
	k.rc = -ENOMEM;
	assert_int_equal(hgm_uffd_unregister(&uffd, ADDR, LEN), -ENOMEM);
	assert_int_equal(k.calls[0], 'u');
	says("UFFDIO_UNREGISTER");
	says("ENOMEM");
	says("vm.max_map_count");
}

static void wake(void **state)
{
	(void)state;
	assert_int_equal(hgm_uffd_wake(&uffd, ADDR, LEN), 0);
	k.wake_rc = -EINVAL;
	assert_int_equal(hgm_uffd_wake(&uffd, ADDR, LEN), -EINVAL);
	says("UFFDIO_WAKE");
	says("EINVAL");
	assert_string_equal(k.calls, "ww");
}

static void messages_are_decoded(void **state)
{
	struct hgm_uffd_event ev[5];

	(void)state;
	memset(ev, 0xff, sizeof(ev));
	k.msg[0].event = UFFD_EVENT_PAGEFAULT;
	k.msg[0].arg.pagefault.flags = HGM_UFFD_FAULT_WRITE | HGM_UFFD_FAULT_MINOR;
	k.msg[0].arg.pagefault.address = 0x7f0000201007;
	k.msg[0].arg.pagefault.feat.ptid = 4711;
	k.msg[1].event = UFFD_EVENT_FORK;
	k.msg[1].arg.fork.ufd = 17;
	k.msg[2].event = UFFD_EVENT_REMAP;
	k.msg[2].arg.remap.from = 0x1000;
	k.msg[2].arg.remap.to = 0x9000;
	k.msg[2].arg.remap.len = 0x3000;
	k.msg[3].event = UFFD_EVENT_REMOVE;
	k.msg[3].arg.remove.start = 0x5000;
	k.msg[3].arg.remove.end = 0x6000;
	k.msg[4].event = UFFD_EVENT_UNMAP;
	k.msg[4].arg.remove.start = 0x7000;
	k.msg[4].arg.remove.end = 0x8000;
	k.messages = 5;
	assert_int_equal(hgm_uffd_read(&uffd, ev, 5), 5);
	assert_int_equal(ev[0].type, HGM_UFFD_EVENT_PAGEFAULT);
	assert_int_equal(ev[0].flags, HGM_UFFD_FAULT_WRITE | HGM_UFFD_FAULT_MINOR);
	assert_int_equal(ev[0].addr, 0x7f0000201007); /* exact: the reader must mask it */
	assert_int_equal(ev[0].tid, 4711);
	assert_int_equal(ev[1].type, HGM_UFFD_EVENT_FORK);
	assert_int_equal(ev[1].tid, 17);
	assert_int_equal(ev[1].addr, 0);
	assert_int_equal(ev[2].type, HGM_UFFD_EVENT_REMAP);
	assert_int_equal(ev[2].addr, 0x1000);
	assert_int_equal(ev[2].end, 0x9000);
	assert_int_equal(ev[2].len, 0x3000);
	assert_int_equal(ev[3].type, HGM_UFFD_EVENT_REMOVE);
	assert_int_equal(ev[3].addr, 0x5000);
	assert_int_equal(ev[3].end, 0x6000);
	assert_int_equal(ev[4].type, HGM_UFFD_EVENT_UNMAP);
	assert_int_equal(ev[4].addr, 0x7000);
	assert_int_equal(ev[4].end, 0x8000);
	assert_int_equal(ev[4].flags, 0);
}

static void messages_come_in_batches(void **state)
{
	struct hgm_uffd_event ev[100];

	(void)state;
	for (uint64_t i = 0; i < 100; i++) {
		k.msg[i].event = UFFD_EVENT_PAGEFAULT;
		k.msg[i].arg.pagefault.address = i << 12;
	}
	k.messages = 100;
	memset(ev, 0xff, sizeof(ev));
	assert_int_equal(hgm_uffd_read(&uffd, ev, 100), HGM_UFFD_READ_MAX);
	assert_int_equal(ev[HGM_UFFD_READ_MAX - 1].addr, (HGM_UFFD_READ_MAX - 1) << 12);
	assert_int_equal(ev[HGM_UFFD_READ_MAX].type, UINT32_MAX); /* unchanged */
	assert_int_equal(hgm_uffd_read(&uffd, ev, 1), 1);
	assert_int_equal(hgm_uffd_read(&uffd, ev, 64), 35);
	assert_int_equal(hgm_uffd_read(&uffd, ev, 64), -EAGAIN);
	assert_int_equal(hgm_uffd_read(&uffd, ev, 0), -EINVAL);
}

static void reads_that_bring_no_message(void **state)
{
	static const struct {
		ssize_t said;
		int rc;
	} cases[] = {
		{ -EAGAIN, -EAGAIN }, { -EINTR, -EAGAIN },
		{ -EINVAL, -EINVAL }, { 1 + 0, -EIO }, /* end of file */
		{ 1 + 1, -EIO },      { 1 + (ssize_t)sizeof(struct uffd_msg) + 8, -EIO },
	};
	struct hgm_uffd_event ev[4];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(ev, 0xff, sizeof(ev));
		k.read_rc = cases[i].said;
		assert_int_equal(hgm_uffd_read(&uffd, ev, 4), cases[i].rc);
		assert_int_equal(ev[0].type, UINT32_MAX);
	}
}

#define TEST(f) cmocka_unit_test_setup(f, begin)

static const struct CMUnitTest tests[] = {
	TEST(register_tells_what_is_offered), TEST(register_says_why_not),
	TEST(unregister_wakes_afterwards),    TEST(wake),
	TEST(messages_are_decoded),	      TEST(messages_come_in_batches),
	TEST(reads_that_bring_no_message),
};

TEST_MAIN(tests)
