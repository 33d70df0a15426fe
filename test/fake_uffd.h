/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that gives out userfaultfds, or refuses to in any way a kernel can, and keeps account of
 * them.
 */
#ifndef HGM_TEST_FAKE_UFFD_H
#define HGM_TEST_FAKE_UFFD_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <hgm/error.h>

#include "kernel/sys.h"
#include "test.h"
#include "uffd/uffd.h"

#define ALL_FEATURES UINT64_C(0x7ffff)
#define USER_MODE    1
#define FDS	     16

enum what {
	CLOSED,
	DEVICE,
	UFFD,
};

static struct {
	int open, uffd_new, userfaultfd, user_mode; /* negative errno, 0: works */
	int api[2];				    /* of the first and second UFFDIO_API */
	uint64_t features;

	enum what fd[FDS];
	unsigned int most;	 /* userfaultfds that can be had */
	unsigned int given;	 /* userfaultfds */
	unsigned int shaken;	 /* UFFDIO_API */
	unsigned int user_tried; /* userfaultfd(2) with UFFD_USER_MODE_ONLY */
	uint64_t asked[4];
} k;

static struct hgm_uffd *u;

static inline int give(enum what what)
{
	for (int fd = 3; fd < FDS && (what == DEVICE || k.given < k.most); fd++) {
		if (k.fd[fd] == CLOSED) {
			k.fd[fd] = what;
			k.given += what == UFFD;
			return fd;
		}
	}
	return -EMFILE;
}

static inline int fake_open(const char *path, int flags)
{
	assert_string_equal(path, "/dev/userfaultfd");
	assert_int_equal(flags & O_ACCMODE, O_RDWR);
	return k.open ? k.open : give(DEVICE);
}

static inline int fake_close(int fd)
{
	assert_uint_in_range(fd, 3, FDS - 1);
	assert_int_not_equal(k.fd[fd], CLOSED);
	k.fd[fd] = CLOSED;
	return 0;
}

static inline int fake_uffd_new(int dev, int flags)
{
	assert_int_equal(k.fd[dev], DEVICE);
	assert_int_equal(flags, O_CLOEXEC | O_NONBLOCK); /* pitfall 24 */
	return k.uffd_new ? k.uffd_new : give(UFFD);
}

static inline int fake_userfaultfd(int flags)
{
	assert_int_equal(flags & ~USER_MODE, O_CLOEXEC | O_NONBLOCK);
	if (flags & USER_MODE) {
		k.user_tried++;
		return k.user_mode ? k.user_mode : give(UFFD);
	}
	return k.userfaultfd ? k.userfaultfd : give(UFFD);
}

static inline int fake_uffd_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	unsigned int n = k.shaken++;

	assert_int_equal(k.fd[fd], UFFD);
	assert_true(n < 2);
	k.asked[n] = *features;
	*ioctls = 0;
	if (k.api[n]) {
		*features = 0;
		return k.api[n];
	}
	if (*features & ~k.features) {
		*features = 0; /* the kernel clears its answer */
		return -EINVAL;
	}
	*features = k.features;
	*ioctls = 3;
	return 0;
}

static const struct hgm_sys fake_sys = {
	.open = fake_open,
	.close = fake_close,
	.uffd_new = fake_uffd_new,
	.userfaultfd = fake_userfaultfd,
	.uffd_api = fake_uffd_api,
};

static inline int begin(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	k.features = ALL_FEATURES;
	k.most = FDS;
	hgm_sys = &fake_sys;
	u = NULL;
	return 0;
}

static inline unsigned int open_now(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < FDS; fd++)
		n += k.fd[fd] != CLOSED;
	return n;
}

static inline int try_open(uint64_t required, uint64_t optional, uint32_t flags)
{
	const struct hgm_uffd_opts opts = {
		.size = sizeof(opts),
		.required = required,
		.optional = optional,
		.flags = flags,
	};

	return hgm_uffd_open(&u, &opts);
}

static inline void close_it(enum hgm_uffd_via via)
{
	assert_non_null(u);
	assert_int_equal(hgm_uffd_get_via(u), via);
	assert_int_equal(k.fd[hgm_uffd_fd(u)], UFFD);
	assert_int_equal(open_now(), 1);
	assert_int_equal(k.given, 2); /* one to learn from, one to keep */
	assert_int_equal(k.shaken, 2);
	hgm_uffd_close(u);
	assert_int_equal(open_now(), 0);
}

static inline void check_refused(int rc, int expected)
{
	assert_int_equal(rc, expected);
	assert_null(u);
	assert_int_equal(open_now(), 0);
}

static inline void says(const char *word)
{
	if (!strstr(hgm_errmsg(), word))
		fail_msg("\"%s\" does not say \"%s\"", hgm_errmsg(), word);
}

#endif
