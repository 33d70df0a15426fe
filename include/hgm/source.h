/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/source.h - where page contents come from
 *
 * A source answers requests to put its bytes [offset, offset + length) into a buffer. The library
 * has three kinds of source: memory, a file, and a function of the caller, which may answer at
 * once, or later from any thread.
 *
 * A source object may feed any number of regions. It is reference counted: hgm_source_destroy()
 * releases the caller's reference, and the object is freed with the last region that uses it.
 */
#ifndef HGM_SOURCE_H
#define HGM_SOURCE_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_source;

/*
 * A thread waits for the contents of this request. Requests without this flag are fill and may be
 * served later.
 */
#define HGM_IO_DEMAND 0x1u

/* Returned by hgm_read_fn: the answer comes later, through hgm_io_done(). */
#define HGM_IO_LATER INT64_MIN

/*
 * Added to a byte count: these bytes are zero, and nothing was written to the buffer. The library
 * then makes zero pages in the cheapest way that the backing has.
 */
#define HGM_IO_ZERO (INT64_C(1) << 62)

/**
 * struct hgm_io - one request to a source
 * @engine: the engine that asks
 * @id:     identifies the request; no two requests of one engine ever have the same @id
 * @offset: the first byte that is requested, from the start of the source; a multiple of 4096
 * @length: number of bytes that are requested; a multiple of 4096, at most 2 MiB
 * @buf:    where to put them, aligned to 4096 bytes; private to the source until it has answered
 * @flags:  HGM_IO_DEMAND or 0
 * @attempt: 0 on the first try, then the number of earlier tries of these bytes that failed
 *
 * The struct is valid only during the call of hgm_read_fn. A source that answers later keeps a
 * copy, by assignment.
 */
struct hgm_io {
	struct hgm *engine;
	uint64_t id;
	uint64_t offset;
	size_t length;
	void *buf;
	uint32_t flags;
	uint32_t attempt;
};

/**
 * hgm_read_fn - a source of the caller
 * @user: as given to hgm_source_fn()
 * @io:   the request; copy it to answer later
 *
 * Fault threads call the function for demand, and worker threads call it for fill. Several calls
 * run at a time. The function must not touch memory of any region; a thread that answers later must
 * not do so before it has answered. It must not call hgm_destroy() or hgm_region_destroy(). Unless
 * the source was created with HGM_SOURCE_BLOCKING, it must return quickly: while it runs on a fault
 * thread, that thread serves no other fault. These threads have stacks of 256 KiB.
 *
 * At most 1024 requests of an engine are unanswered at a time, and at most 512 of these are without
 * HGM_IO_DEMAND. A queue of that size never has to refuse a request.
 *
 * Return: the number of bytes delivered, at least one page and at most @io->length (a count that is
 * not a multiple of 4096 is rounded down, and the missing bytes are asked for again), with
 * HGM_IO_ZERO added if they are zeroes; HGM_IO_LATER; or a negative errno. 0 counts as -EIO.
 *
 * The library retries a failed request with backoff (see struct hgm_opts). If a thread waits for
 * the contents, they are poisoned in the end where the kernel can do so. Transient errors concern
 * the path to the contents, and not the contents. A request that fails with one of them is retried
 * for as long as @outage_ms of struct hgm_opts says. The transient errors are -EAGAIN, -EBUSY,
 * -EINTR, -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM, -ECOMM, -ECONNABORTED, -ECONNREFUSED, -ECONNRESET,
 * -EHOSTDOWN, -EHOSTUNREACH, -ENETDOWN, -ENETRESET, -ENETUNREACH, -ENOLINK, -ENONET, -ENOTCONN,
 * -EPIPE, -ESHUTDOWN, -ETIME, -ETIMEDOUT.
 */
typedef int64_t (*hgm_read_fn)(void *user, const struct hgm_io *io);

/* hgm_source_fn(): @read may sleep; call it on worker threads only. */
#define HGM_SOURCE_BLOCKING 0x1u

/**
 * struct hgm_source_fn_opts - options of a caller's source
 * @size:   sizeof(struct hgm_source_fn_opts)
 * @length: number of bytes that the source has, so that a region that asks for more is refused; 0
 *          if unknown
 * @flags:  HGM_SOURCE_BLOCKING or 0
 * @cancel: asks the source to hurry. While a region or its engine is being destroyed, the library
 *          calls this function repeatedly for each request that is unanswered, with the engine and
 *          the id of the request, until it is answered. The request must still be answered, for
 *          example with -ECANCELED, and destruction waits for the answer. The answer may cross the
 *          call, so the function must ignore an id that it no longer knows. May be NULL.
 * @hurry:  tells the source that a thread now waits for a request that was made without
 *          HGM_IO_DEMAND and is unanswered. The source should serve it as if it had that flag. The
 *          library calls this function on fault threads, at most once for each request. It must not
 *          block. The answer may cross the call, as with @cancel. The library does not call it
 *          where contents are copied in (HGM_BACKING_ANON, HGM_BACKING_SHMEM_LAZY and
 *          HGM_REGION_LAZY). There it asks for the page that the thread waits for once more, with
 *          HGM_IO_DEMAND, and the answer that comes first counts. May be NULL.
 * @free:   releases @user. The library calls this function once, when the source is freed: with the
 *          last reference, inside hgm_source_destroy(), hgm_region_destroy(), hgm_destroy() or a
 *          hgm_region_create() that fails. No request is unanswered then, and @read, @cancel and
 *          @hurry are not called any more. It may block; it must not call these four functions for
 *          the same objects. May be NULL.
 */
struct hgm_source_fn_opts {
	size_t size;
	uint64_t length;
	uint32_t flags;
	uint32_t reserved;
	void (*cancel)(void *user, struct hgm *engine, uint64_t id);
	void (*hurry)(void *user, struct hgm *engine, uint64_t id);
	void (*free)(void *user);
};

/**
 * hgm_source_fn - a source that asks a function of the caller
 * @out:  the new source
 * @read: the function
 * @user: passed to it
 * @opts: NULL for the defaults
 *
 * Errors: -EINVAL @out or @read is NULL, or a flag is unknown; -E2BIG, -EINVAL bad options;
 * -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_fn(struct hgm_source **out, hgm_read_fn read, void *user,
			     const struct hgm_source_fn_opts *opts);

/**
 * hgm_source_memory - a source that copies from memory
 * @out:    the new source
 * @addr:   first byte. The memory must stay readable and unchanged while the source is in use. It
 *          must not lie in a region of an engine that the source feeds, because the engine's
 *          threads would wait for themselves
 * @length: bytes; any number
 *
 * Errors: -EINVAL @out or @addr is NULL, or @length is 0 or overflows; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_memory(struct hgm_source **out, const void *addr, uint64_t length);

/**
 * hgm_source_file - a source that reads a file
 * @out:  the new source
 * @path: a regular file or block device, readable
 *
 * The file is opened once and must keep its contents while the source is in use. The call finds the
 * holes of the file, which become zero pages without being read. If a thread waits for contents
 * that are in the page cache, the fault thread reads them itself. Worker threads read all other
 * contents.
 *
 * Errors: those of open(2) and lseek(2), most often -ENOENT and -EACCES; -EINVAL an argument is
 * NULL, or the file is neither a regular file nor a block device, or is empty; -ENOMEM.
 * Calling thread: any. Blocks for as long as open(2) and finding the holes take. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_file(struct hgm_source **out, const char *path);

/**
 * hgm_source_fd - a source that reads an open file
 * @out: the new source
 * @fd:  a descriptor of a regular file or block device, open for reading. The file is opened again
 *       or, where that is not possible, @fd is duplicated, so the caller may close it. Its file
 *       position is neither used nor changed.
 *
 * Otherwise as hgm_source_file().
 *
 * Errors: -EBADF @fd is not open, or not open for reading; -EINVAL as hgm_source_file(); -EMFILE;
 * -ENOMEM; others as fstat(2) and lseek(2) say.
 * Calling thread: any. Blocks for as long as finding the holes takes. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_fd(struct hgm_source **out, int fd);

/**
 * hgm_source_destroy - release the caller's reference to a source
 * @src: the source, or NULL
 *
 * Regions that use the source continue to use it, and it is freed with the last of them.
 *
 * Calling thread: any. May call close(2). Since: 0.1.
 */
HGM_PUBLIC void hgm_source_destroy(struct hgm_source *src);

/**
 * hgm_io_done - answer a request for which hgm_read_fn returned HGM_IO_LATER
 * @io:     the request, or a copy of it
 * @result: as hgm_read_fn returns it, but not HGM_IO_LATER
 *
 * The contents must be in @io->buf before the call. The calling thread installs the pages and wakes
 * their waiters.
 *
 * The call may come before hgm_read_fn has returned HGM_IO_LATER. Each request must be answered
 * exactly once. An engine always exists while one of its requests is unanswered, because
 * hgm_destroy() waits for all answers.
 *
 * Errors: -EALREADY the request was answered before (nothing was changed); -EINVAL @io is NULL, or
 * is not a request that its engine has made (nothing was changed), or @result is not a possible
 * answer (the request then counts as failed).
 * Calling thread: any, also inside hgm_read_fn. Does not block except on the kernel's own locks in
 * UFFDIO_CONTINUE or UFFDIO_COPY. Since: 0.1.
 */
HGM_PUBLIC int hgm_io_done(const struct hgm_io *io, int64_t result);

/**
 * hgm_io_done_sparse - answer a request if some of its pages are zero
 * @io:     the request, or a copy of it
 * @length: number of bytes delivered, from the first byte on, as hgm_read_fn counts them, including
 *          zeroes
 * @zeroes: one bit for each page of these bytes. The lowest bit of the first word is for the first
 *          page. If a bit is set, the page is zero, and the source must not have written to its
 *          part of @io->buf, which may be the guest's page itself
 *
 * Otherwise as hgm_io_done(). The library makes zero pages in the cheapest way that the backing
 * has. A source that answers at once calls this function inside hgm_read_fn and returns
 * HGM_IO_LATER.
 *
 * Errors: as hgm_io_done(); also -EINVAL @zeroes is NULL, and the request stays unanswered.
 * Calling thread: any, also inside hgm_read_fn. Does not block except on the kernel's own locks in
 * UFFDIO_CONTINUE, UFFDIO_COPY or UFFDIO_ZEROPAGE. Since: 0.1.
 */
HGM_PUBLIC int hgm_io_done_sparse(const struct hgm_io *io, uint64_t length, const uint64_t *zeroes);

HGM_END_DECLS

#endif /* HGM_SOURCE_H */
