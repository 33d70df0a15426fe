/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internals of the model.
 *
 *	table.c		the system call table, model_begin() and model_end()
 *	file.c		descriptors, files and their page cache
 *	pool.c		huge pages: total, taken, promised
 *	vma.c		mappings
 *	real.c		operations on the real memory underneath
 *	map.c		mmap, munmap, mprotect
 *	uffd.c		handshake, registration, waking
 *	message.c	reading: which faults the modelled kernel would report, and how
 *	range.c		CONTINUE, COPY and the other operations on ranges
 *	advice.c	madvise, except for the next two
 *	collapse.c	MADV_COLLAPSE
 *	split.c		MADV_SPLIT
 *	text.c		smaps and sysfs files
 *	pagemap.c	pagemap and PAGEMAP_SCAN
 *	written.c	the warning at the first write after an un-protect
 *	tree.c		the page table of one huge page
 *
 * The real registration has the same modes as the modelled one. Real memory therefore fills by
 * itself where the modelled kernel would also fill without a message. The model looks for such
 * pages when it next needs to know (vma_sync). Real memory is mapped wherever the model's page
 * table maps it, unless it would fill by itself.
 *
 * One lock protects everything. It is held across real calls, except those that may wait for a
 * fault.
 */
#ifndef HGM_TEST_MODEL_STATE_H
#define HGM_TEST_MODEL_STATE_H

#include <sys/types.h>

#include <hgm/uapi.h>

#include "kernel/sys.h"
#include "model.h"
#include "tree.h"

#define BLOCK_CACHED   1 /* the whole huge page exists */
#define BLOCK_PROMISED 2
#define BLOCK_POISONED 4 /* MADV_HWPOISON */

struct pool {
	uint64_t bytes; /* size of a page */
	uint64_t total;
	uint64_t taken;
	uint64_t promised;
	uint64_t lost; /* given back with BLOCK_POISONED: never free again */
};

struct file {
	struct file *next;
	struct pool *pool;
	enum level level;
	uint64_t block; /* bytes of a huge page */
	int fd;		/* our own */
	dev_t device;
	ino_t inode;
	uint64_t size;
	unsigned int fds;
	unsigned int vmas;
	uint64_t blocks; /* in state[] */
	uint64_t room;
	uint8_t *state;
};

/* A fault that was reported with another page than the one on which its thread waits. */
struct waiter {
	struct waiter *next;
	uint64_t queued_at;
	uint64_t page;
};

struct ctx {
	int fd;
	uint64_t features;
	bool ready;
	struct waiter *waiters;
};

struct vma {
	struct vma *next; /* ordered by address */
	uint64_t start;
	uint64_t end;
	struct file *file;
	uint64_t offset;
	int prot;
	bool shared;
	bool hm;
	struct ctx *ctx;
	uint64_t modes;
	struct entry *page;
};

struct model {
	struct model_opts opts;
	struct pool pool[2];
	struct vma *vmas;
	struct file *files;
	int pagemap;
	unsigned int warnings;
};

extern struct model model;
extern const struct hgm_sys model_sys;

void model_lock(void);
void model_unlock(void);
__attribute__((noreturn, format(printf, 1, 2))) void model_bug(const char *format, ...);

/* Zeroed memory. It is unmapped when freed, because tests compare a program's memory use. */
void *big_alloc(uint64_t len);
void big_free(void *p, uint64_t len);

/* What a descriptor refers to. */
enum object {
	OBJECT_OTHER,
	OBJECT_FILE,
	OBJECT_UFFD,
	OBJECT_PAGEMAP,
};

void fd_set_object(int fd, enum object object, void *what); /* drops the previous object */
void *fd_object(int fd, enum object object);
struct file *fd_file(int fd);
void fd_forget_all(void);
void fd_reconcile(void); /* forget those that were closed without the model */

/* Pools */
struct pool *pool_of(uint64_t bytes);
int pool_promise(struct file *f, uint64_t first, uint64_t blocks);
int pool_take(struct file *f, uint64_t block);
void pool_give_back(struct file *f, uint64_t block);
uint64_t pool_free(const struct pool *p);

/* Files */
struct file *file_new(int real_fd, uint64_t block);
void file_put(struct file *f); /* after removal of a descriptor or a mapping; frees if the last */
void file_resize(struct file *f, uint64_t size);
bool file_cached(struct file *f, uint64_t block); /* completes the huge page if part is there */
bool file_poisoned(struct file *f, uint64_t block);
int file_allocate(struct file *f, uint64_t block);
void file_whole(struct file *f, uint64_t offset, uint64_t len);
void file_drop(struct file *f, uint64_t block);
int file_punch(struct file *f, uint64_t offset, uint64_t len);
void file_look_all(void); /* look for huge pages that were touched */

/* Mappings */
struct vma *vma_at(uint64_t addr);
struct vma *vma_next(uint64_t addr); /* the first one that ends above @addr */
bool vma_in(uint64_t start, uint64_t end);
struct vma *vma_add(const struct vma *from);
void vma_split(struct vma *v, uint64_t at);
int vma_isolate(uint64_t start, uint64_t end); /* split at both; -EINVAL inside a huge page */
void vma_remove(uint64_t start, uint64_t end);
void vma_sync(struct vma *v, uint64_t block);
void vma_sync_range(struct vma *v, uint64_t start, uint64_t end);
void vma_block_appeared(struct file *f, uint64_t block);
void vma_block_dropped(struct file *f, uint64_t block);
void vma_block_poisoned(struct file *f, uint64_t block);
void vma_deregister(struct vma *v);
uint64_t vma_1g_leaf(struct vma *v, uint64_t start, uint64_t end);
void vma_mincore(const struct vma *v, uint64_t start, uint64_t end);
void vma_forked(struct vma *v);

static inline uint64_t vma_index(const struct vma *v, uint64_t addr)
{
	return (addr - v->start) / v->file->block;
}

static inline uint64_t vma_block(const struct vma *v, uint64_t addr)
{
	return (v->offset + (addr - v->start)) / v->file->block;
}

/* Iterates over what lies between two addresses, one part at a time. */
enum stretch_kind {
	STRETCH_MODEL,
	STRETCH_OTHER, /* memory that is not the model's */
	STRETCH_GAP,
};

struct stretch {
	enum stretch_kind kind;
	uint64_t start;
	uint64_t end;
	struct vma *vma;
};

bool real_memory_at(uint64_t addr, uint64_t *start, uint64_t *end); /* or the next above it */
bool stretch_next(struct stretch *s, uint64_t end); /* initially s->end is the first address */

/* Real memory */
int real_map(struct vma *v, uint64_t start, uint64_t len, bool wp);   /* wakes no thread */
void real_map_pieces(struct vma *v, uint64_t huge_page, bool mapped); /* its leaves or its holes */
bool real_present(uint64_t start, uint64_t len);
uint64_t real_pagemap(uint64_t addr);
void real_unprotect(struct vma *v, uint64_t start, uint64_t len);

/* Writes after an un-protect: watch for them; count them, and watch no longer */
void written_watch(struct vma *v, uint64_t start, uint64_t end);
void written_look(uint64_t start, uint64_t end, bool forget);
void written_end(void);

/* The functions of the system call table, by file */
int model_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd, uint64_t offset);
int model_munmap(void *addr, uint64_t len);
int model_mprotect(void *addr, uint64_t len, int prot);
int model_madvise(void *addr, uint64_t len, int advice);
int model_collapse(struct vma *v, uint64_t start, uint64_t end);
int model_split(struct vma *v, uint64_t start, uint64_t end);
int model_pagemap_take_written(int fd, const void *start, const void *end,
			       struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end);
int model_pagemap_scan(int fd, const void *start, const void *end, uint64_t category,
		       struct hgm_pm_region *out, uint64_t out_len, uint64_t *walk_end);
ssize_t model_pread(int fd, void *buf, size_t len, uint64_t offset);
int model_open(const char *path, int flags);
ssize_t model_read(int fd, void *buf, size_t len);

int model_uffd_api(int fd, uint64_t *features, uint64_t *ioctls);
int model_uffd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls);
int model_uffd_unregister(int fd, void *addr, uint64_t len);
int model_uffd_wake(int fd, void *addr, uint64_t len);
void ctx_wake(struct ctx *ctx, uint64_t start, uint64_t len);
void ctx_queued(struct ctx *ctx, uint64_t queued_at, uint64_t page);
void ctx_forget_waiters(struct ctx *ctx, uint64_t start, uint64_t end);
void ctx_close(struct ctx *ctx);
int model_uffd_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode, int64_t *done);
int model_uffd_zeropage(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
int model_uffd_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
int model_uffd_poison(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done);
int model_uffd_move(int fd, void *dst, void *src, uint64_t len, uint64_t mode, int64_t *done);
int model_uffd_writeprotect(int fd, void *addr, uint64_t len, uint64_t mode);
int model_uffd_rwprotect(int fd, void *addr, uint64_t len, uint64_t mode);
int model_uffd_set_mode(int fd, uint64_t enable, uint64_t disable);
int model_kvm_create_vm(int kvm);
int model_kvm_guest_memfd(int vm, uint64_t len, uint64_t flags);

/* In the RFC v2, bit 13 has another meaning. */
static inline bool model_has(uint64_t feature)
{
	if (model.opts.rfc)
		feature &= ~HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM;
	return model.opts.features & feature;
}

/* Does CONTINUE take pieces of 4 KiB? */
static inline bool vma_takes_pieces(const struct vma *v)
{
	if (!v->hm || model.opts.continue_4k_fails)
		return false;
	return !model.opts.rfc ||
	       (v->ctx && v->ctx->features & HGM_UFFD_FEATURE_MINOR_HUGETLBFS_HGM);
}

#endif
