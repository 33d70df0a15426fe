/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "discarding.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_PAGE UINT64_MAX

const char *const way_names[] = {
	[WAY_CALL] = "hgm_region_discard",
	[WAY_REMOVE] = "MADV_REMOVE",
	[WAY_DONTNEED] = "MADV_DONTNEED",
	[WAY_PUNCH] = "a punched hole",
};

static bool is_anon(enum backing backing)
{
	return backing == BACKING_ANON || backing == BACKING_MAPPING_ANON;
}

static bool is_lazy(enum backing backing)
{
	return backing == BACKING_SHMEM_LAZY || backing == BACKING_FD_LAZY ||
	       backing == BACKING_MAPPING_LAZY;
}

static bool is_callers_file(enum backing backing)
{
	return (backing >= BACKING_FD && backing <= BACKING_MAPPING_LAZY) ||
	       backing == BACKING_FD_HUGETLB_2M;
}

bool way_drops(enum way way, enum backing backing)
{
	switch (way) {
	case WAY_REMOVE:
		return !is_anon(backing);
	case WAY_DONTNEED:
		return is_anon(backing);
	case WAY_PUNCH:
		return is_callers_file(backing);
	default:
		return true;
	}
}

/* A hole that was never filled can be punched without a trace. */
bool way_shows(enum way way, enum backing backing)
{
	return way_drops(way, backing) && !(way == WAY_PUNCH && is_lazy(backing));
}

void discard_by(enum way way, const struct ram *ram, uint64_t offset, uint64_t length)
{
	int rc = 0;

	switch (way) {
	case WAY_REMOVE:
		rc = madvise(ram->addr + offset, length, MADV_REMOVE);
		break;
	case WAY_DONTNEED:
		rc = madvise(ram->addr + offset, length, MADV_DONTNEED);
		break;
	case WAY_PUNCH:
		rc = fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)(ram->fd_offset + offset), (off_t)length);
		break;
	default:
		assert_ok(hgm_region_discard(ram->region, offset, length));
	}
	if (rc)
		fail_msg("%s: %s", way_names[way], strerrorname_np(errno));
}

static uint64_t mapped_pages(const struct ram *ram)
{
	uint64_t pages = ram->length / PAGE, held = 0;
	uint64_t *entry = calloc(pages, sizeof(*entry));
	int fd = open("/proc/self/pagemap", O_RDONLY);
	ssize_t bytes = (ssize_t)(pages * sizeof(*entry));

	assert_non_null(entry);
	assert_int_equal(pread(fd, entry, (size_t)bytes,
			       (off_t)((uintptr_t)ram->addr / PAGE * sizeof(*entry))),
			 bytes);
	for (uint64_t i = 0; i < pages; i++)
		held += entry[i] >> 62 != 0; /* present or swapped out */
	close(fd);
	free(entry);
	return held;
}

static uint64_t cached_pages(const struct ram *ram)
{
	uint64_t pages = ram->length / PAGE, held = 0;
	unsigned char *resident = calloc(pages, 1);

	assert_non_null(resident);
	assert_int_equal(mincore(ram->addr, ram->length, resident), 0);
	for (uint64_t i = 0; i < pages; i++)
		held += resident[i] & 1;
	free(resident);
	return held;
}

uint64_t held_bytes(const struct ram *ram, enum backing backing)
{
	struct stat st;

	if (is_anon(backing))
		return mapped_pages(ram) * PAGE;
	if (ram->fd < 0)
		return cached_pages(ram) * PAGE;
	assert_int_equal(fstat(ram->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

void assert_zeroes(const char *at, uint64_t length, const char *what)
{
	uint64_t i = 0;

	/* An emulated machine takes long to look at each byte. */
	if (!length || (!at[0] && !memcmp(at, at + 1, length - 1)))
		return;
	while (i < length - 1 && !at[i])
		i++;
	fail_msg("%s: byte %llu of discarded memory is %#x", what, (unsigned long long)i,
		 (unsigned int)(uint8_t)at[i]);
}

static int64_t answer(struct ledger *l, const struct hgm_io *io)
{
	uint64_t first = io->offset / PAGE, pages = io->length / PAGE, good = 0;
	void (*before)(void *, const struct hgm_io *) = atomic_load(&l->before);

	if (before)
		before(atomic_load(&l->user), io);
	while (good < pages &&
	       first + good - atomic_load(&l->bad_page) >= atomic_load(&l->bad_pages))
		good++;
	contents_write(l->contents, first, good, io->buf);
	return good ? (int64_t)(good * PAGE) : -EIO;
}

static int64_t ledger_read(void *user, const struct hgm_io *io)
{
	struct ledger *l = user;

	for (uint64_t i = 0; i < io->length / PAGE; i++)
		atomic_fetch_add(&l->asked[io->offset / PAGE + i], 1);
	if (!atomic_load(&l->keep))
		return answer(l, io);
	pthread_mutex_lock(&l->lock);
	assert_true(l->kept < LEDGER_REQUESTS);
	l->io[l->kept++] = *io;
	pthread_mutex_unlock(&l->lock);
	return HGM_IO_LATER;
}

void ledger_make(struct ledger *l, const struct contents *c, uint64_t length)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .length = length };

	assert_true(length / PAGE <= LEDGER_PAGES);
	memset(l, 0, sizeof(*l));
	l->contents = c;
	pthread_mutex_init(&l->lock, NULL);
	assert_ok(hgm_source_fn(&l->source, ledger_read, l, &opts));
}

void ledger_free(struct ledger *l)
{
	hgm_source_destroy(l->source);
	pthread_mutex_destroy(&l->lock);
}

unsigned int ledger_kept(struct ledger *l)
{
	unsigned int n;

	pthread_mutex_lock(&l->lock);
	n = l->kept;
	pthread_mutex_unlock(&l->lock);
	return n;
}

static bool asks_for(const struct hgm_io *io, uint64_t page)
{
	return page - io->offset / PAGE < io->length / PAGE;
}

bool ledger_keeps(struct ledger *l, uint64_t page)
{
	bool found = false;

	pthread_mutex_lock(&l->lock);
	for (unsigned int i = 0; i < l->kept; i++)
		found |= asks_for(&l->io[i], page);
	pthread_mutex_unlock(&l->lock);
	return found;
}

static bool take_lowest(struct ledger *l, struct hgm_io *io, uint64_t but)
{
	unsigned int lowest;
	bool some;

	pthread_mutex_lock(&l->lock);
	lowest = l->kept;
	for (unsigned int i = 0; i < l->kept; i++)
		if (!asks_for(&l->io[i], but) &&
		    (lowest == l->kept || l->io[i].offset < l->io[lowest].offset))
			lowest = i;
	some = lowest < l->kept;
	if (some) {
		*io = l->io[lowest];
		l->io[lowest] = l->io[--l->kept];
	}
	pthread_mutex_unlock(&l->lock);
	return some;
}

void ledger_give(struct ledger *l, unsigned int most)
{
	struct hgm_io io;

	while (most-- && take_lowest(l, &io, NO_PAGE))
		assert_ok(hgm_io_done(&io, answer(l, &io)));
}

void ledger_give_but(struct ledger *l, uint64_t page)
{
	struct hgm_io io;

	if (take_lowest(l, &io, page))
		assert_ok(hgm_io_done(&io, answer(l, &io)));
}

void assert_not_asked(struct ledger *l, uint64_t page, uint64_t pages, const char *what)
{
	for (uint64_t p = page; p < page + pages; p++)
		if (atomic_load(&l->asked[p]))
			fail_msg("%s: the source was asked for discarded page %llu", what,
				 (unsigned long long)p);
}
