/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of huge pages, and which of them are in the page cache. The model does not notice when an
 * access adds pages to the page cache. It looks for them when it needs to know, and then adds the
 * rest of the huge page, because the page cache never has only a part of one.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 65536

static struct {
	enum object object;
	void *what;
} fds[FDS];

static void forget(int fd)
{
	enum object object = fds[fd].object;
	void *what = fds[fd].what;

	fds[fd].object = OBJECT_OTHER;
	fds[fd].what = NULL;
	if (object == OBJECT_FILE) {
		((struct file *)what)->fds--;
		file_put(what);
	} else if (object == OBJECT_UFFD) {
		ctx_close(what);
	}
}

void fd_set_object(int fd, enum object object, void *what)
{
	if (fd < 0 || fd >= FDS)
		return;
	forget(fd);
	fds[fd].object = object;
	fds[fd].what = what;
	if (object == OBJECT_FILE)
		((struct file *)what)->fds++;
}

void *fd_object(int fd, enum object object)
{
	if (fd < 0 || fd >= FDS || fds[fd].object != object)
		return NULL;
	return fds[fd].what ? fds[fd].what : &fds[fd];
}

void fd_forget_all(void)
{
	for (int fd = 0; fd < FDS; fd++)
		forget(fd);
}

void fd_reconcile(void)
{
	for (int fd = 0; fd < FDS; fd++) {
		struct file *f = fd_object(fd, OBJECT_FILE);
		struct stat st;

		if (f && (fstat(fd, &st) || st.st_ino != f->inode || st.st_dev != f->device))
			forget(fd);
	}
}

/* A descriptor that was not made by dup(), but opened through /proc, is found by its inode. */
struct file *fd_file(int fd)
{
	struct file *f = fd_object(fd, OBJECT_FILE);
	struct stat st;

	if (f || !model.files || fstat(fd, &st))
		return f;
	for (f = model.files; f; f = f->next)
		if (f->inode == st.st_ino && f->device == st.st_dev)
			return f;
	return NULL;
}

struct file *file_new(int real_fd, uint64_t block)
{
	struct file *f = calloc(1, sizeof(*f));
	char path[40];
	struct stat st;

	if (!f || fstat(real_fd, &st))
		model_bug("a file of huge pages: %s", strerror(errno));
	/* An open file description of our own, because the model moves its file position. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", real_fd);
	f->fd = open(path, O_RDWR | O_CLOEXEC);
	if (f->fd < 0) {
		free(f);
		return NULL;
	}
	f->pool = pool_of(block);
	f->level = block == GIB1 ? LEVEL_PUD : LEVEL_PMD;
	f->block = block;
	f->device = st.st_dev;
	f->inode = st.st_ino;
	f->next = model.files;
	model.files = f;
	return f;
}

void file_put(struct file *f)
{
	struct file **at = &model.files;

	if (f->fds || f->vmas)
		return;
	for (uint64_t b = 0; b < f->blocks; b++)
		pool_give_back(f, b);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	close(f->fd);
	big_free(f->state, f->room);
	free(f);
}

void file_resize(struct file *f, uint64_t size)
{
	uint64_t blocks = size / f->block;

	for (uint64_t b = blocks; b < f->blocks; b++) {
		file_drop(f, b);
		pool_give_back(f, b);
	}
	if (blocks > f->room) {
		uint8_t *state = big_alloc(blocks);

		if (f->blocks)
			memcpy(state, f->state, f->blocks);
		big_free(f->state, f->room);
		f->state = state;
		f->room = blocks;
	}
	f->blocks = blocks;
	f->size = size;
}

void file_whole(struct file *f, uint64_t offset, uint64_t len)
{
	while (fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len))
		if (errno != EINTR)
			model_bug("memory for a huge page: %s", strerror(errno));
}

/* A part of the huge page may be there: add the rest. */
static void appear(struct file *f, uint64_t block)
{
	file_whole(f, block * f->block, f->block);
	vma_block_appeared(f, block);
}

bool file_cached(struct file *f, uint64_t block)
{
	off_t start = (off_t)(block * f->block);
	off_t data;

	if (block >= f->blocks)
		return false;
	if (f->state[block] & BLOCK_CACHED)
		return true;
	data = lseek(f->fd, start, SEEK_DATA);
	if (data < 0 || data >= start + (off_t)f->block)
		return false;
	/* If no page is left, this access would have raised SIGBUS on the modelled kernel. */
	if (pool_take(f, block)) {
		f->pool->taken++;
		f->state[block] |= BLOCK_CACHED;
		fprintf(stderr, "model: a huge page was touched where none was left\n");
	}
	appear(f, block);
	return true;
}

bool file_poisoned(struct file *f, uint64_t block)
{
	return file_cached(f, block) && f->state[block] & BLOCK_POISONED;
}

int file_allocate(struct file *f, uint64_t block)
{
	int rc;

	if (block >= f->blocks)
		return -EFAULT;
	if (file_cached(f, block))
		return 0;
	rc = pool_take(f, block);
	if (!rc)
		appear(f, block);
	return rc;
}

/* Remove a huge page from the page cache and from all page tables. */
void file_drop(struct file *f, uint64_t block)
{
	vma_block_dropped(f, block);
	if (block < f->blocks && f->state[block] & BLOCK_CACHED)
		pool_give_back(f, block);
}

void file_look_all(void)
{
	for (struct file *f = model.files; f; f = f->next)
		for (off_t at = 0; (at = lseek(f->fd, at, SEEK_DATA)) >= 0;) {
			uint64_t block = (uint64_t)at / f->block;

			file_cached(f, block);
			at = (off_t)((block + 1) * f->block);
		}
}

int file_punch(struct file *f, uint64_t offset, uint64_t len)
{
	static const char zeroes[KIB4];
	uint64_t end = offset + len;

	while (offset < end) {
		if (offset % f->block || end - offset < f->block) {
			/* A part of a huge page cannot be removed. It is zeroed instead. */
			if (file_cached(f, offset / f->block) &&
			    pwrite(f->fd, zeroes, KIB4, (off_t)offset) < 0)
				return -errno;
			offset += KIB4;
			continue;
		}
		file_drop(f, offset / f->block);
		if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			      (off_t)f->block))
			return -errno;
		offset += f->block;
	}
	return 0;
}

int model_punch_hole(int fd, uint64_t offset, uint64_t len)
{
	struct file *f;
	int rc;

	model_lock();
	f = fd_file(fd);
	rc = f ? file_punch(f, offset, len) : -EBADF;
	model_unlock();
	return rc;
}
