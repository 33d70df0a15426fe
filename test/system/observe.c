/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Uses a seccomp filter that asks a thread. That thread has no filter, and lets every call happen.
 */
#include "observe.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1 /* 5.5 */
#endif

struct observer {
	struct observed *observed;
	_Atomic int listener;
};

static void *observer(void *arg)
{
	struct observer *o = arg;
	struct seccomp_notif call;

	while (!o->listener)
		sched_yield();
	for (;;) {
		struct seccomp_notif_resp answer = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };

		memset(&call, 0, sizeof(call));
		if (ioctl(o->listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) {
			if (errno == EINTR || errno == ENOENT)
				continue;
			return NULL;
		}
		if (call.data.nr >= 0 && call.data.nr < OBSERVE_CALLS)
			atomic_fetch_add(&o->observed->calls[o->observed->phase][call.data.nr], 1);
		answer.id = call.id;
		ioctl(o->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

int observe_begin(struct observed *observed)
{
	static struct observer o;
	struct sock_filter ask[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		/* The test's own call, which comes between the filter and the observer. */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	};
	struct sock_fprog program = { sizeof(ask) / sizeof(ask[0]), ask };
	pthread_t thread;

	o.observed = observed;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (pthread_create(&thread, NULL, observer, &o))
		return -EAGAIN;
	pthread_detach(thread);
	o.listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				  SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	return o.listener < 0 ? -errno : 0;
}
