/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/source.h - where page contents come from
 *
 * A source answers requests "bytes [offset, offset + length) please, into this buffer". Three kinds
 * come with the library: memory, a file, and the caller's own function, which may answer at once
 * or later from any thread.
 *
 * A source object may feed any number of regions. It is counted: hgm_source_destroy() gives up the
 * caller's hold, and the object goes with the last region that uses it.
 */
#ifndef HGM_SOURCE_H
#define HGM_SOURCE_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm;
struct hgm_source;

/*
 * Somebody waits for this request's contents; requests without it are fill and may be served
 * later.
 */
#define HGM_IO_DEMAND 0x1u

/* Returned by hgm_read_fn: the answer will come by hgm_io_done(). */
#define HGM_IO_LATER INT64_MIN

/*
 * Added to a byte count: these bytes are zero and nothing was written to the buffer. The library
 * then makes zero pages in the cheapest way that the backing has.
 */
#define HGM_IO_ZERO (INT64_C(1) << 62)

/**
 * struct hgm_io - one request to a source
 * @engine: the engine that asks
 * @id:     the request's identity; no two requests of one engine ever have the same
 * @offset: first byte wanted, counted from the start of the source; a multiple of 4096
 * @length: bytes wanted; a multiple of 4096, at most 2 MiB
 * @buf:    where to put them, 4096-byte aligned; private to the source until it has answered
 * @flags:  HGM_IO_DEMAND or 0
 * @attempt: 0 on the first try, then how many tries of these bytes have failed before
 *
 * The struct lives only as long as the call of hgm_read_fn; a source that answers later keeps a
 * copy of it (a plain assignment).
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
 * hgm_read_fn - a caller's source
 * @user: as given to hgm_source_fn()
 * @io:   the request; copy it to answer later
 *
 * Called on fault threads (for demand) and worker threads (for fill), several at once. It must not
 * touch memory of any region (nor may a thread that answers later, before it has answered), must
 * not call hgm_destroy() or hgm_region_destroy(), and, unless the source was made with
 * HGM_SOURCE_BLOCKING, must return quickly: while it runs on a fault thread no other fault of that
 * thread is served.
 *
 * At most 1024 requests of an engine are unanswered at a time, at most 512 of them without
 * HGM_IO_DEMAND; a queue of that size never has to refuse one.
 *
 * Return: the number of bytes delivered, at least one page and at most @io->length (a count that is
 * no multiple of 4096 is rounded down; what is missing is asked for again), HGM_IO_ZERO added if
 * they are zeroes; HGM_IO_LATER; or a negative errno, which is retried with backoff (see struct
 * hgm_opts) and in the end poisons the pages where the kernel can. 0 counts as -EIO.
 */
typedef int64_t (*hgm_read_fn)(void *user, const struct hgm_io *io);

/* hgm_source_fn(): @read may sleep; call it on worker threads only. */
#define HGM_SOURCE_BLOCKING 0x1u

/**
 * struct hgm_source_fn_opts - options of a caller's source
 * @size:   sizeof(struct hgm_source_fn_opts)
 * @length: bytes that the source has, so that a region that asks for more is refused; 0 if unknown
 * @flags:  HGM_SOURCE_BLOCKING or 0
 * @cancel: asked for haste: called, again and again until it is answered, for each request that is
 *          unanswered when its region or engine is being destroyed, with the request's engine and
 *          id. The request must be answered all the same (-ECANCELED is fine); destruction waits
 *          for it. The answer may cross the call: an id that is not known any more is to be
 *          ignored. May be NULL.
 */
struct hgm_source_fn_opts {
	size_t size;
	uint64_t length;
	uint32_t flags;
	uint32_t reserved;
	void (*cancel)(void *user, struct hgm *engine, uint64_t id);
};

/**
 * hgm_source_fn - a source that asks a function of the caller's
 * @out:  the new source
 * @read: the function
 * @user: passed to it
 * @opts: NULL for the defaults
 *
 * Errors: -EINVAL @out or @read is NULL, a flag is unknown; -E2BIG, -EINVAL bad options; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_fn(struct hgm_source **out, hgm_read_fn read, void *user,
			     const struct hgm_source_fn_opts *opts);

/**
 * hgm_source_memory - a source that copies from memory
 * @out:    the new source
 * @addr:   first byte; must stay readable and unchanged while the source is in use, and must not
 *          lie in a region of an engine that it feeds (that engine's threads would wait for
 *          themselves)
 * @length: bytes; any
 *
 * Errors: -EINVAL @out or @addr is NULL, @length is 0 or overflows; -ENOMEM.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_memory(struct hgm_source **out, const void *addr, uint64_t length);

/**
 * hgm_source_file - a source that reads a file
 * @out:  the new source
 * @path: a regular file or block device, readable
 *
 * The file is opened once and must keep its contents while it is in use. Its holes are found now
 * and become zero pages without being read; on demand, contents that the page cache has are read by
 * the fault thread, all else by worker threads.
 *
 * Errors: those of open(2) and lseek(2), most often -ENOENT and -EACCES; -EINVAL an argument is
 * NULL, or the file is no regular file or block device, or it is empty; -ENOMEM.
 * Calling thread: any. Blocks for as long as open(2) and finding the holes take. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_file(struct hgm_source **out, const char *path);

/**
 * hgm_source_fd - a source that reads an open file
 * @out: the new source
 * @fd:  a descriptor of a regular file or block device, open for reading; it is duplicated, so the
 *       caller may close it. Its file position is neither used nor changed.
 *
 * Otherwise as hgm_source_file().
 *
 * Errors: -EBADF @fd is not open, or not for reading; -EINVAL as hgm_source_file(); -EMFILE;
 * -ENOMEM.
 * Calling thread: any. Blocks for as long as finding the holes takes. Since: 0.1.
 */
HGM_PUBLIC int hgm_source_fd(struct hgm_source **out, int fd);

/**
 * hgm_source_destroy - give up the caller's hold of a source
 * @src: the source, or NULL
 *
 * Regions that use it go on using it; it is freed with the last of them.
 *
 * Calling thread: any. May call close(2). Since: 0.1.
 */
HGM_PUBLIC void hgm_source_destroy(struct hgm_source *src);

/**
 * hgm_io_done - answer a request for which hgm_read_fn returned HGM_IO_LATER
 * @io:     the request, or a copy of it
 * @result: as hgm_read_fn returns it, but not HGM_IO_LATER
 *
 * The contents must be in @io->buf before the call. The pages are installed and their waiters woken
 * by the calling thread.
 *
 * It may be called before hgm_read_fn has returned HGM_IO_LATER. Each request is answered exactly
 * once, and the engine must still exist: hgm_destroy() waits for all answers, so an engine is never
 * gone while a request is unanswered.
 *
 * Errors: -EALREADY the request was answered before, or never asked (nothing was changed); -EINVAL
 * @io is NULL or no request of its engine, or @result is no possible answer (the request then
 * counts as failed).
 * Calling thread: any, also inside hgm_read_fn. Does not block but for the kernel's own locks in
 * UFFDIO_CONTINUE or UFFDIO_COPY. Since: 0.1.
 */
HGM_PUBLIC int hgm_io_done(const struct hgm_io *io, int64_t result);

HGM_END_DECLS

#endif /* HGM_SOURCE_H */
