/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that the kernel cannot give back at once. To free a part of a huge page of shmem, it
 * splits the huge page, and it cannot while someone holds a reference to any part of that: a thread
 * in a page fault, a device, here a pipe. hgm_region_discard() tries again, so that what is held
 * for a moment is given back, and what is held for long reads as zeroes.
 */
#include "discarding.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define WAIT_MS	   SMALLER(20000, 100000)
#define BLOCK	   (2 * MIB)
#define LENGTH	   (2 * BLOCK)
#define PUNCHES	   20 /* more than it ever tries */
#define NEVER	   UINT32_MAX
#define SOME_PAGES 100

static const struct contents contents = { .seed = 307 };
static const struct hgm_sys *kernel;

/* Keeps a reference to a page as long as it is in the pipe. */
static void hold(int to, char *page)
{
	struct iovec one = { .iov_base = page, .iov_len = PAGE };

	assert_int_equal(vmsplice(to, &one, 1, 0), PAGE);
}

static void let_go(int from)
{
	char page[PAGE];

	assert_int_equal(read(from, page, PAGE), PAGE);
}

static uint64_t bytes_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void punch(int fd, uint64_t offset, uint64_t length)
{
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
				   (off_t)length),
			 0);
}

/* What the kernel does, without the library: if this fails, the library has nothing to mend. */
static void the_kernel_keeps_what_it_cannot_split(void **state)
{
	int fd = memfd_create("held", MFD_CLOEXEC), ends[2];
	char *space = mmap(NULL, 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)space + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1));

	(void)state;
	assert_true(fd >= 0 && space != MAP_FAILED);
	assert_int_equal(ftruncate(fd, BLOCK), 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(mmap(at, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
	*at = 1;
	assert_int_equal(madvise(at, BLOCK, HGM_MADV_COLLAPSE), 0);
	memset(at, 7, BLOCK);
	assert_int_equal(bytes_of(fd), BLOCK);

	hold(ends[1], at);
	punch(fd, SOME_PAGES * PAGE, PAGE); /* another page of the same huge page */
	assert_int_equal(bytes_of(fd), BLOCK);
	assert_zeroes(at + SOME_PAGES * PAGE, PAGE, "a page that the kernel kept");
	punch(fd, SOME_PAGES * PAGE, PAGE);
	assert_int_equal(bytes_of(fd), BLOCK);

	let_go(ends[0]);
	punch(fd, SOME_PAGES * PAGE, PAGE);
	assert_int_equal(bytes_of(fd), BLOCK - PAGE);
	munmap(space, 2 * BLOCK);
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

static struct {
	int from; /* the pipe */
	unsigned int held;
	unsigned int punches;
	unsigned int until;	    /* let go when so many holes were punched */
	struct hgm_region *protect; /* this region's page, when the first hole was punched */
	uint64_t offset;
} holder;

static int punch_and_let_go(int fd, uint64_t offset, uint64_t len)
{
	int rc = kernel->punch_hole(fd, offset, len);

	holder.punches++;
	if (holder.protect && holder.punches == 1)
		assert_ok(hgm_region_protect(holder.protect, holder.offset, PAGE, 0, NULL));
	if (holder.punches >= holder.until)
		for (; holder.held; holder.held--)
			let_go(holder.from);
	return rc;
}

struct trial {
	enum backing backing;
	struct provider *provider;
	struct hgm *h;
	struct ram ram;
	int ends[2];
};

static void begin(struct trial *t, enum backing backing)
{
	static struct hgm_sys letting_go;

	memset(t, 0, sizeof(*t));
	t->backing = backing;
	watch(backing_names[backing], 100);
	assert_int_equal(pipe2(t->ends, O_CLOEXEC), 0);
	if (!kernel)
		kernel = hgm_sys;
	letting_go = *kernel;
	letting_go.punch_hole = punch_and_let_go;
	hgm_sys = &letting_go;
	holder.held = 0;
	t->provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	t->h = engine(2);
	ram_make(&t->ram, t->h, backing, LENGTH, provider_source(t->provider), 0);
	assert_ok(hgm_start(t->h));
	assert_ok(hgm_wait(t->h, WAIT_MS));
	assert_huge(&t->ram, backing);
	assert_int_equal(held_bytes(&t->ram, backing), LENGTH);
}

static void end(struct trial *t)
{
	ram_end(&t->ram);
	hgm_destroy(t->h);
	hgm_sys = kernel;
	provider_free(t->provider);
	close(t->ends[0]);
	close(t->ends[1]);
	calm();
}

/* Someone holds the first page of each block until so many holes were punched. */
static void hold_blocks(struct trial *t, unsigned int until)
{
	holder.from = t->ends[0];
	holder.punches = 0;
	holder.until = until;
	for (uint64_t at = 0; at < LENGTH; at += BLOCK, holder.held++)
		hold(t->ends[1], t->ram.addr + at);
}

static void assert_discarded(const struct trial *t, uint64_t page, uint64_t pages)
{
	const char *at = t->ram.addr;

	assert_pages(&contents, 0, page, at);
	assert_zeroes(at + page * PAGE, pages * PAGE, backing_names[t->backing]);
	assert_pages(&contents, page + pages, LENGTH / PAGE - page - pages,
		     at + (page + pages) * PAGE);
}

static void for_a_moment(enum backing backing, uint64_t page, uint64_t pages)
{
	struct trial t;

	begin(&t, backing);
	hold_blocks(&t, 3);
	assert_ok(hgm_region_discard(t.ram.region, page * PAGE, pages * PAGE));
	assert_int_equal(held_bytes(&t.ram, backing), LENGTH - pages * PAGE);
	assert_true(holder.punches > 3 && holder.punches < PUNCHES);
	assert_discarded(&t, page, pages);
	end(&t);
}

static void for_long(enum backing backing)
{
	struct trial t;

	begin(&t, backing);
	hold_blocks(&t, NEVER);
	assert_ok(hgm_region_discard(t.ram.region, SOME_PAGES * PAGE, PAGE));
	assert_int_equal(held_bytes(&t.ram, backing), LENGTH);
	assert_true(holder.punches > 1 && holder.punches < PUNCHES);
	assert_discarded(&t, SOME_PAGES, 1);
	holder.until = 0; /* once more, with nobody who holds it */
	assert_ok(hgm_region_discard(t.ram.region, SOME_PAGES * PAGE, PAGE));
	assert_int_equal(held_bytes(&t.ram, backing), LENGTH - PAGE);
	assert_discarded(&t, SOME_PAGES, 1);
	end(&t);
}

/* A page that is protected meanwhile is not dropped again without asking. */
static void protected_meanwhile(enum backing backing)
{
	struct hgm_watch_opts opts = { .size = sizeof(opts), .verdict = HGM_WRITE_WAIT };
	struct trial t;

	begin(&t, backing);
	assert_ok(hgm_region_watch(t.ram.region, &opts));
	hold_blocks(&t, NEVER);
	holder.protect = t.ram.region;
	holder.offset = SOME_PAGES * PAGE;
	assert_ok(hgm_region_discard(t.ram.region, SOME_PAGES * PAGE, PAGE));
	holder.protect = NULL;
	assert_int_equal(holder.punches, 1);
	assert_error(hgm_region_discard(t.ram.region, SOME_PAGES * PAGE, PAGE), -EBUSY);
	assert_ok(hgm_region_unwatch(t.ram.region));
	end(&t);
}

/* After tries that were all in vain, there are fewer for a while. */
static void held_by_a_device(enum backing backing)
{
	struct trial t;
	uint64_t before;

	begin(&t, backing);
	hold_blocks(&t, NEVER);
	before = now_us();
	assert_ok(hgm_region_discard(t.ram.region, SOME_PAGES * PAGE, PAGE));
	assert_true(holder.punches > 3);
	holder.punches = 0;
	assert_ok(hgm_region_discard(t.ram.region, (SOME_PAGES + 1) * PAGE, PAGE));
	if (now_us() - before < 500000) /* else the while may be over */
		assert_int_equal(holder.punches, 2);
	end(&t);
}

static void each(void (*one)(enum backing backing))
{
	static const enum backing backings[] = { BACKING_SHMEM,	  BACKING_SHMEM_LAZY,
						 BACKING_FD,	  BACKING_FD_LAZY,
						 BACKING_MAPPING, BACKING_MAPPING_LAZY };

	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		one(backings[i]);
}

static void a_page(enum backing backing)
{
	for_a_moment(backing, SOME_PAGES, 1);
}

/* Both ends of the range are parts of huge pages. */
static void more_than_a_block(enum backing backing)
{
	for_a_moment(backing, SOME_PAGES, BLOCK / PAGE + SOME_PAGES);
}

static void what_is_held_for_a_moment_is_given_back(void **state)
{
	(void)state;
	each(a_page);
	each(more_than_a_block);
}

static void what_is_held_for_long_reads_as_zeroes(void **state)
{
	(void)state;
	each(for_long);
}

static void what_is_protected_meanwhile_is_left_alone(void **state)
{
	(void)state;
	each(protected_meanwhile);
}

static void what_is_pinned_costs_little(void **state)
{
	(void)state;
	each(held_by_a_device);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(what_is_protected_meanwhile_is_left_alone),
	cmocka_unit_test(what_is_pinned_costs_little),
	cmocka_unit_test(the_kernel_keeps_what_it_cannot_split),
	cmocka_unit_test(what_is_held_for_a_moment_is_given_back),
	cmocka_unit_test(what_is_held_for_long_reads_as_zeroes),
};

TEST_MAIN(tests)
