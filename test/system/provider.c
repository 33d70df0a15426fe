/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sources of the system tests. They deliver the same contents, in every possible way.
 */
#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ANSWERERS   3
#define PENDING_MAX 2048

const char *const provider_names[] = {
	[PROVIDER_MEMORY] = "memory",	     [PROVIDER_FILE] = "file with holes",
	[PROVIDER_NOW] = "fn at once",	     [PROVIDER_LATER] = "fn later",
	[PROVIDER_BLOCKING] = "fn blocking", [PROVIDER_SHORT] = "fn short answers",
	[PROVIDER_MIXED] = "fn mixed",
};

struct provider {
	enum provider_kind kind;
	struct contents contents;
	struct hgm_source *source;
	uint64_t length;
	void *memory;
	FILE *file;
	_Atomic uint64_t random;
	_Atomic uint64_t answer_below;
	_Atomic unsigned int cancels;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct hgm_io pending[PENDING_MAX];
	unsigned int pending_count;
	bool stop;
	pthread_t answerer[ANSWERERS];
};

/* Answers a request up to the next border between contents and holes. */
static int64_t deliver(struct provider *f, const struct hgm_io *io, uint64_t max_pages)
{
	uint64_t page = io->offset / PAGE;
	uint64_t pages = io->length / PAGE < max_pages ? io->length / PAGE : max_pages;
	bool hole = contents_hole(&f->contents, page);
	uint64_t n = 1;

	while (n < pages && contents_hole(&f->contents, page + n) == hole)
		n++;
	if (hole)
		return (int64_t)(n * PAGE) | HGM_IO_ZERO;
	contents_write(&f->contents, page, n, io->buf);
	return (int64_t)(n * PAGE);
}

static int64_t read_now(void *user, const struct hgm_io *io)
{
	return deliver(user, io, UINT64_MAX);
}

/* The answers are not even whole pages. The bytes after the last whole page do not count. */
static int64_t read_short(void *user, const struct hgm_io *io)
{
	struct provider *f = user;
	uint64_t pages = 1 + random_of(&f->random) % 3;
	int64_t got = deliver(f, io, pages);

	return got & HGM_IO_ZERO || (uint64_t)got == io->length ? got : got + 1000;
}

static int64_t read_blocking(void *user, const struct hgm_io *io)
{
	struct provider *f = user;

	nap_us(50 + (unsigned int)(random_of(&f->random) % 200));
	return deliver(f, io, UINT64_MAX);
}

static int64_t read_later(void *user, const struct hgm_io *io)
{
	struct provider *f = user;
	int64_t result = HGM_IO_LATER;

	pthread_mutex_lock(&f->lock);
	if (f->pending_count == PENDING_MAX)
		result = -ENOBUFS;
	else
		f->pending[f->pending_count++] = *io;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
	return result;
}

static void *answerer(void *arg)
{
	struct provider *f = arg;

	pthread_mutex_lock(&f->lock);
	while (!f->stop) {
		struct hgm_io io;
		unsigned int i;

		if (!f->pending_count) {
			pthread_cond_wait(&f->cond, &f->lock);
			continue;
		}
		i = (unsigned int)(random_of(&f->random) % f->pending_count);
		io = f->pending[i];
		f->pending[i] = f->pending[--f->pending_count];
		pthread_mutex_unlock(&f->lock);
		if (random_of(&f->random) % 4 == 0)
			nap_us(60);
		hgm_io_done(&io, deliver(f, &io, UINT64_MAX));
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static int64_t read_mixed(void *user, const struct hgm_io *io)
{
	struct provider *f = user;

	switch (random_of(&f->random) % 8) {
	case 0:
		return read_later(f, io);
	case 1:
		return io->attempt < 2 ? -EIO : read_now(f, io);
	case 2:
		return read_short(f, io);
	default:
		return read_now(f, io);
	}
}

static int64_t read_never(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, below;
	struct provider *f = user;
	int64_t result = HGM_IO_LATER;

	/*
	 * Holds the lock, so either provider_give() finds this request, or this function sees the
	 * new limit.
	 */
	pthread_mutex_lock(&f->lock);
	below = atomic_load(&f->answer_below);
	if (page >= below && f->pending_count == PENDING_MAX)
		result = -ENOBUFS;
	else if (page >= below)
		f->pending[f->pending_count++] = *io;
	pthread_mutex_unlock(&f->lock);
	return page < below ? deliver(f, io, below - page) : result;
}

static void cancel(void *user, struct hgm *h, uint64_t id)
{
	struct hgm_io io = { .engine = NULL };
	struct provider *f = user;

	pthread_mutex_lock(&f->lock);
	for (unsigned int i = 0; i < f->pending_count; i++) {
		if (f->pending[i].id == id && f->pending[i].engine == h) {
			io = f->pending[i];
			f->pending[i] = f->pending[--f->pending_count];
			break;
		}
	}
	pthread_mutex_unlock(&f->lock);
	atomic_fetch_add(&f->cancels, 1);
	if (io.engine)
		hgm_io_done(&io, -ECANCELED);
}

void provider_answer_below(struct provider *f, uint64_t page)
{
	pthread_mutex_lock(&f->lock);
	atomic_store(&f->answer_below, page);
	pthread_mutex_unlock(&f->lock);
}

unsigned int provider_kept(struct provider *f)
{
	unsigned int n;

	pthread_mutex_lock(&f->lock);
	n = f->pending_count;
	pthread_mutex_unlock(&f->lock);
	return n;
}

void provider_give(struct provider *f)
{
	while (provider_kept(f)) {
		struct hgm_io io;

		pthread_mutex_lock(&f->lock);
		io = f->pending[--f->pending_count];
		pthread_mutex_unlock(&f->lock);
		assert_ok(hgm_io_done(&io, deliver(f, &io, UINT64_MAX)));
	}
}

unsigned int provider_cancels(const struct provider *f)
{
	return atomic_load(&f->cancels);
}

static void make_memory(struct provider *f)
{
	f->memory =
		mmap(NULL, f->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->memory, MAP_FAILED);
	contents_write(&f->contents, 0, f->length / PAGE, f->memory);
	assert_ok(hgm_source_memory(&f->source, f->memory, f->length));
}

static void make_file(struct provider *f)
{
	uint8_t page[PAGE] __attribute__((aligned(8)));
	int fd;

	f->file = tmpfile();
	assert_non_null(f->file);
	fd = fileno(f->file);
	assert_int_equal(ftruncate(fd, (off_t)f->length), 0);
	for (uint64_t p = 0; p < f->length / PAGE; p++) {
		if (contents_hole(&f->contents, p))
			continue;
		contents_write(&f->contents, p, 1, page);
		assert_int_equal(pwrite(fd, page, PAGE, (off_t)(p * PAGE)), PAGE);
	}
	assert_ok(hgm_source_fd(&f->source, fd));
}

static void make_later(struct provider *f, hgm_read_fn read, const struct hgm_source_fn_opts *opts)
{
	for (unsigned int i = 0; i < ANSWERERS; i++)
		assert_int_equal(pthread_create(&f->answerer[i], NULL, answerer, f), 0);
	assert_ok(hgm_source_fn(&f->source, read, f, opts));
}

struct provider *provider_make(enum provider_kind kind, const struct contents *c, uint64_t length)
{
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .length = length };
	struct provider *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->kind = kind;
	f->contents = *c;
	f->length = length;
	atomic_init(&f->random, c->seed);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	switch (kind) {
	case PROVIDER_MEMORY:
		make_memory(f);
		break;
	case PROVIDER_FILE:
		make_file(f);
		break;
	case PROVIDER_NOW:
		assert_ok(hgm_source_fn(&f->source, read_now, f, &opts));
		break;
	case PROVIDER_LATER:
		make_later(f, read_later, &opts);
		break;
	case PROVIDER_MIXED:
		make_later(f, read_mixed, &opts);
		break;
	case PROVIDER_BLOCKING:
		opts.flags = HGM_SOURCE_BLOCKING;
		assert_ok(hgm_source_fn(&f->source, read_blocking, f, &opts));
		break;
	case PROVIDER_NEVER:
		opts.cancel = cancel;
		assert_ok(hgm_source_fn(&f->source, read_never, f, &opts));
		break;
	default:
		assert_ok(hgm_source_fn(&f->source, read_short, f, &opts));
	}
	return f;
}

struct hgm_source *provider_source(const struct provider *f)
{
	return f->source;
}

void provider_free(struct provider *f)
{
	hgm_source_destroy(f->source);
	if (f->kind == PROVIDER_LATER || f->kind == PROVIDER_MIXED) {
		pthread_mutex_lock(&f->lock);
		f->stop = true;
		pthread_cond_broadcast(&f->cond);
		pthread_mutex_unlock(&f->lock);
		for (unsigned int i = 0; i < ANSWERERS; i++)
			pthread_join(f->answerer[i], NULL);
	}
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->cond);
	if (f->memory)
		munmap(f->memory, f->length);
	if (f->file)
		fclose(f->file);
	free(f);
}
