/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "batch.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/sys.h"

const struct contents batch_contents = { .seed = 41 };
static const struct hgm_sys *kernel;
static struct hgm_sys sys;

/*
 * The fault thread: how it is held back, and its clock
 */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static bool holding;
static _Atomic int uffd = -1;
static _Thread_local bool serving;
static _Atomic uint64_t clock_ns; /* 0: the real clock */
static _Atomic uint64_t tick_ns;

/* Replaces the function of the C library. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	uint64_t now = serving && id == CLOCK_MONOTONIC ? atomic_load(&clock_ns) : 0;

	if (!now)
		return (int)syscall(SYS_clock_gettime, id, ts);
	clock_goes_on(atomic_load(&tick_ns));
	*ts = (struct timespec){ .tv_sec = (time_t)(now / 1000000000),
				 .tv_nsec = (long)(now % 1000000000) };
	return 0;
}

void clock_goes_on(uint64_t ns)
{
	atomic_fetch_add(&clock_ns, ns);
}

void clock_ticks(uint64_t ns)
{
	atomic_store(&tick_ns, ns);
}

void clock_runs(void)
{
	atomic_store(&tick_ns, 0);
	atomic_store(&clock_ns, 0);
}

void hold_back(void)
{
	pthread_mutex_lock(&gate);
	holding = true;
}

void let_go(void)
{
	holding = false;
	pthread_mutex_unlock(&gate);
}

static ssize_t gated_read(int fd, void *buf, size_t len)
{
	ssize_t n;

	if (fd != atomic_load(&uffd))
		return kernel->read(fd, buf, len);
	serving = true;
	pthread_mutex_lock(&gate);
	n = kernel->read(fd, buf, len);
	pthread_mutex_unlock(&gate);
	return n;
}

/*
 * The requests and calls that are recorded, in order
 */
static struct {
	pthread_mutex_t lock;
	struct call call[CALLS];
	unsigned int count;
	char *base;
} made = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Records the call before it takes effect, so that a thread that it wakes finds it. */
static void note(enum verb verb, uint64_t page, uint64_t bytes, bool wakes)
{
	pthread_mutex_lock(&made.lock);
	if (made.count < CALLS)
		made.call[made.count++] = (struct call){
			verb, page, bytes / PAGE, wakes, atomic_load(&clock_ns),
		};
	pthread_mutex_unlock(&made.lock);
}

unsigned int calls_of(enum verb verb, struct call to[CALLS])
{
	unsigned int n = 0;

	pthread_mutex_lock(&made.lock);
	assert_true(made.count < CALLS);
	for (unsigned int i = 0; i < made.count; i++)
		if (made.call[i].verb == verb)
			to[n++] = made.call[i];
	pthread_mutex_unlock(&made.lock);
	return n;
}

void forget_calls(void)
{
	pthread_mutex_lock(&made.lock);
	made.count = 0;
	pthread_mutex_unlock(&made.lock);
}

static uint64_t page_at(const void *addr)
{
	return (uint64_t)((const char *)addr - made.base) / PAGE;
}

/* A page that the kernel refuses once. */
static struct {
	_Atomic uint64_t page;
	_Atomic int error;
} refused = { .page = NOWHERE };

void kernel_refuses(uint64_t page, int error)
{
	refused.error = error;
	atomic_store(&refused.page, page);
}

bool kernel_refused(void)
{
	return atomic_load(&refused.page) == NOWHERE;
}

static bool refuses(const void *addr, int64_t *done)
{
	uint64_t page = page_at(addr);

	*done = refused.error;
	return atomic_compare_exchange_strong(&refused.page, &page, NOWHERE);
}

static int noted_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	atomic_store(&uffd, fd);
	return kernel->uffd_register(fd, addr, len, modes, ioctls);
}

static int noted_wake(int fd, void *addr, uint64_t len)
{
	note(WAKE, page_at(addr), len, true);
	return kernel->uffd_wake(fd, addr, len);
}

static int noted_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	note(CONTINUE, page_at(addr), len, !(mode & HGM_UFFD_CONTINUE_DONTWAKE));
	return refuses(addr, done) ? refused.error
				   : kernel->uffd_continue(fd, addr, len, mode, done);
}

static int noted_copy(int fd, void *dst, const void *src, uint64_t len, uint64_t mode,
		      int64_t *done)
{
	note(COPY, page_at(dst), len, !(mode & HGM_UFFD_COPY_DONTWAKE));
	return refuses(dst, done) ? refused.error
				  : kernel->uffd_copy(fd, dst, src, len, mode, done);
}

/*
 * The source
 */
struct source_conduct conduct;

static struct {
	pthread_mutex_t lock;
	struct hgm_io io;
	bool is_there;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool holds(const struct hgm_io *io, uint64_t page)
{
	return page >= io->offset / PAGE && page < (io->offset + io->length) / PAGE;
}

static int64_t keep(const struct hgm_io *io)
{
	pthread_mutex_lock(&kept.lock);
	conduct.later_page = NOWHERE;
	kept.io = *io;
	kept.is_there = true;
	pthread_mutex_unlock(&kept.lock);
	return HGM_IO_LATER;
}

static int64_t source_read(void *user, const struct hgm_io *io)
{
	uint64_t page = io->offset / PAGE, pages = io->length / PAGE;

	(void)user;
	note(ASK, page, io->length, false);
	while (atomic_load(&conduct.stalls))
		nap_us(100);
	if (atomic_load(&clock_ns))
		clock_goes_on(conduct.takes_ns);
	if (holds(io, conduct.bad_page))
		return -EIO;
	if (page == conduct.later_page)
		return keep(io);
	if (holds(io, conduct.later_page))
		pages = conduct.later_page - page;
	contents_write(&batch_contents, page, pages, io->buf);
	return (int64_t)(pages * PAGE);
}

bool source_keeps(void *unused)
{
	bool is_there;

	(void)unused;
	pthread_mutex_lock(&kept.lock);
	is_there = kept.is_there;
	pthread_mutex_unlock(&kept.lock);
	return is_there;
}

void source_give(void)
{
	struct hgm_io io;

	pthread_mutex_lock(&kept.lock);
	assert_true(kept.is_there);
	kept.is_there = false;
	io = kept.io;
	pthread_mutex_unlock(&kept.lock);
	contents_write(&batch_contents, io.offset / PAGE, io.length / PAGE, io.buf);
	assert_ok(hgm_io_done(&io, (int64_t)io.length));
}

int batch_set_up(void **state)
{
	(void)state;
	watch("waiters that are served together", 100);
	conduct.later_page = NOWHERE;
	conduct.bad_page = NOWHERE;
	conduct.takes_ns = 0;
	atomic_store(&conduct.stalls, false);
	kept.is_there = false;
	atomic_store(&refused.page, NOWHERE);
	clock_runs();
	if (hgm_sys == &sys) /* it may be in use: a failed case leaves its engine behind */
		return 0;
	kernel = hgm_sys;
	sys = *kernel;
	sys.read = gated_read;
	sys.uffd_register = noted_register;
	sys.uffd_wake = noted_wake;
	sys.uffd_continue = noted_continue;
	sys.uffd_copy = noted_copy;
	hgm_sys = &sys;
	return 0;
}

int batch_tear_down(void **state)
{
	(void)state;
	if (holding)
		let_go();
	clock_runs();
	calm();
	return 0;
}

struct trial *trial_begin(enum backing backing, uint32_t source_flags, uint32_t retries)
{
	static struct trial trial; /* outlives a failed case, as its threads do */
	struct hgm_source_fn_opts opts = { .size = sizeof(opts), .flags = source_flags };

	opts.length = BATCH_LENGTH;
	trial = (struct trial){ .h = engine_with((struct hgm_opts){
					.fault_threads = 1,
					.spin_us = HGM_SPIN_NEVER,
					.retries = retries,
				}) };
	assert_ok(hgm_source_fn(&trial.src, source_read, NULL, &opts));
	ram_make(&trial.ram, trial.h, backing, BATCH_LENGTH, trial.src,
		 HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE);
	made.base = trial.ram.addr;
	assert_ok(hgm_start(trial.h));
	atomic_store(&clock_ns, now_us() * 1000);
	forget_calls();
	return &trial;
}

void trial_forget(struct trial *t)
{
	clock_runs();
	hgm_destroy(t->h);
	hgm_source_destroy(t->src);
}

void trial_end(struct trial *t)
{
	ram_end(&t->ram);
	trial_forget(t);
}

/* The number of messages that no thread has read. */
static unsigned int pending(void)
{
	char path[64], line[128];
	unsigned int n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", atomic_load(&uffd));
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "pending:", 8))
			n = (unsigned int)strtoul(line + 8, NULL, 10);
	fclose(file);
	return n;
}

static bool are_pending(void *arg)
{
	return pending() == *(unsigned int *)arg;
}

void batch_grows(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count)
{
	unsigned int all = pending() + count;

	assert_true(t->count + count <= BATCH_MAX);
	for (unsigned int i = 0; i < count; i++, t->count++) {
		t->page[t->count] = first_page + i * step;
		waiter_start(&t->waiter[t->count], t->ram.addr + t->page[t->count] * PAGE);
	}
	assert_true(eventually(are_pending, &all, 5000));
}

void batch_comes(struct trial *t, uint64_t first_page, uint64_t step, unsigned int count)
{
	hold_back();
	batch_grows(t, first_page, step, count);
	let_go();
}

bool is_back(void *arg)
{
	return atomic_load(&((struct waiter *)arg)->signal) != -1;
}

void assert_back(struct trial *t, unsigned int who)
{
	if (!eventually(is_back, &t->waiter[who], 5000))
		fail_msg("who waits for page %llu is left asleep",
			 (unsigned long long)t->page[who]);
}

void batch_returns(struct trial *t)
{
	for (unsigned int i = 0; i < t->count; i++) {
		assert_back(t, i);
		waiter_join(&t->waiter[i]);
		assert_int_equal(t->waiter[i].signal, 0);
		assert_pages(&batch_contents, t->page[i], 1, t->ram.addr + t->page[i] * PAGE);
	}
	t->count = 0;
}
