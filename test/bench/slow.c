/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into the bench, this makes libhgm map slowly: each UFFDIO_CONTINUE of its threads takes
 * some extra time. With SLOW_CALLS=N, only the first N calls do.
 */
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "of_libhgm.h"

#define SLOW_US 100

int ioctl(int fd, unsigned long request, ...);

static int is_slow(void)
{
	static _Atomic unsigned long calls;
	const char *most = getenv("SLOW_CALLS");

	return !most || atomic_fetch_add(&calls, 1) < strtoul(most, NULL, 10);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == UFFDIO_CONTINUE && is_of_libhgm() && is_slow())
		usleep(SLOW_US);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
