/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/peer.h - memory of another process
 *
 * A process can leave the faults of its memory to another one, its handler: it makes a userfaultfd,
 * registers memory, and sends the descriptor over a unix socket (SCM_RIGHTS). Firecracker does so
 * when it restores a snapshot. These functions let the library be that handler. The process needs
 * no libhgm, and no change.
 */
#ifndef HGM_PEER_H
#define HGM_PEER_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_peer;

/**
 * struct hgm_peer_opts - which process it is
 * @size:  sizeof(struct hgm_peer_opts)
 * @uffd:  the userfaultfd that the process has made; required. The process has called UFFDIO_API
 *         and has registered its memory for missing pages. The library duplicates the descriptor,
 *         so the caller may close it, and sets O_NONBLOCK, which holds for the descriptor of the
 *         process, too
 * @pidfd: the process, if @pid is 0; also duplicated. SO_PEERPIDFD (Linux 6.5) gives the one at the
 *         other end of a unix socket. It must be the process whose memory it is: the library would
 *         take a snapshot of another one's, if that has memory at the same addresses
 * @pid:   the process, or 0. SO_PEERCRED gives the one at the other end of a unix socket. It must
 *         not have exited, because another process may get its number then
 */
struct hgm_peer_opts {
	size_t size;
	int uffd;
	int pidfd;
	int pid;
	uint32_t reserved;
};

/**
 * struct hgm_peer_info - what is known of a process
 * @size:           sizeof(struct hgm_peer_info), set by the caller
 * @pid:            the process
 * @state:          0, or -ESRCH: the process has exited, or runs another program
 * @features:       HGM_UFFD_FEATURE_*: what the process asked for when it made its userfaultfd
 * @collapse_error: 0: blocks of its memory can be made huge. Otherwise a negative errno of
 *                  process_madvise(2): -EPERM without CAP_SYS_NICE, -EACCES without the right to
 *                  trace the process (PTRACE_MODE_READ), -EINVAL before kernel 6.1
 * @verify_error:   0: the library checks in the page tables of the process whether a block is huge.
 *                  Otherwise a negative errno, and it believes process_madvise(2): -EOPNOTSUPP
 *                  before kernel 6.7, -EACCES without the right to trace the process
 */
struct hgm_peer_info {
	size_t size;
	int pid;
	int state;
	uint64_t features;
	int collapse_error;
	int verify_error;
};

/**
 * hgm_peer_create - be the handler of another process
 * @out:  the process as the library sees it
 * @h:    the engine; it has been started
 * @opts: required: @uffd, and @pidfd or @pid
 *
 * A thread of the library reads the messages of the userfaultfd from the creation of the first
 * region (HGM_BACKING_PEER) on. Create the others before the process drops memory of theirs: faults
 * outside of all regions wait until there is a region, but what is dropped before there is one is
 * not noticed.
 *
 * Errors:
 *  -EINVAL  an argument is NULL; the engine was not started; @uffd is no userfaultfd, or it is one
 *           of this process (which is noticed with the right to trace the other process only), or
 *           its owner has not called UFFDIO_API yet; @pidfd is no pidfd, or that of a process that
 *           our PID namespace does not show; @pid is negative, or this process; @reserved is not 0
 *  -E2BIG   @opts is from a newer libhgm and uses an option that this one does not know
 *  -EBADF   a descriptor is not open
 *  -EOPNOTSUPP the userfaultfd has EVENT_FORK, EVENT_REMAP or SIGBUS
 *  -ESRCH   there is no such process, or the one that made @uffd has exited or runs another program
 *  -ENOMEM  out of memory
 *  others   as pidfd_open(2), fcntl(2), eventfd(2), pthread_create(3) and the kernel's /proc say
 * After an error nothing is left behind.
 *
 * Calling thread: any. Does not block. Since: 0.1. Kernel: 5.15 (what /proc/self/fdinfo
 * shows of a userfaultfd).
 */
HGM_PUBLIC int hgm_peer_create(struct hgm_peer **out, struct hgm *h,
			       const struct hgm_peer_opts *opts);

/**
 * hgm_peer_destroy - stop being the handler of a process
 * @p: the process, or NULL
 *
 * Its regions end as hgm_region_destroy() says, and must not be used any more. hgm_destroy() does
 * the same for all. Where memory stays registered, a thread that drops it waits, too, until
 * another handler reads the event. The library closes its duplicate of the userfaultfd. If that
 * was the last descriptor, the kernel unregisters the memory, and missing pages read as zeroes.
 *
 * Calling thread: any but the library's own and hgm_read_fn. Blocks as hgm_region_destroy() does.
 * Since: 0.1.
 */
HGM_PUBLIC void hgm_peer_destroy(struct hgm_peer *p);

/**
 * hgm_peer_get_info - what is known of a process
 * @p:    the process
 * @info: filled in; its @size must be set before the call. If the caller's struct is shorter than
 *        the library's, fields that do not fit are left out. If it is longer, the rest is set to
 *        zero.
 *
 * When a process exits, hgm_event_fd() becomes readable, @state changes, requests of its regions
 * are cancelled, and hgm_wait() does not wait for them any more. That it runs another program
 * (execve(2)) is noticed when the next page is installed, or within some seconds.
 *
 * Errors: -EINVAL an argument is NULL or @size is invalid.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_peer_get_info(const struct hgm_peer *p, struct hgm_peer_info *info);

HGM_END_DECLS

#endif /* HGM_PEER_H */
