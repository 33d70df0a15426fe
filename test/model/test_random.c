/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random calls: by one thread, with an independent prediction of each result; then by many threads,
 * with a recount of the real page table afterwards.
 */
#include "play.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCKS 4
#define PAGES  512
#define STEPS  20000

static uint64_t seed;

static uint64_t mix(_Atomic uint64_t *state)
{
	uint64_t x = atomic_fetch_add(state, UINT64_C(0x9e3779b97f4a7c15));

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void new_seed(void)
{
	const char *given = getenv("HGM_TEST_SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)getpid() * 77777;
	printf("# HGM_TEST_SEED=%llu\n", (unsigned long long)seed);
}

/* The expected state, by page and without a tree. */
struct expected {
	bool cached;
	bool table;
	bool leaf;
	bool mapped[PAGES];
};

static struct expected want[BLOCKS];

/* Expected result of one step of CONTINUE: bytes or -errno. */
static int64_t expect_step(uint64_t page, uint64_t end)
{
	struct expected *b = &want[page / PAGES];

	if (page % PAGES == 0 && end - page >= PAGES) {
		if (!b->cached)
			return -EFAULT;
		if (b->leaf || b->table)
			return -EEXIST;
		b->leaf = true;
		return PAGES;
	}
	if (b->leaf)
		return -EEXIST;
	b->table = true;
	if (b->mapped[page % PAGES])
		return -EEXIST;
	if (!b->cached)
		return -EFAULT;
	b->mapped[page % PAGES] = true;
	return 1;
}

static void check_continue(uint64_t page, uint64_t pages)
{
	uint64_t at = page;
	int64_t step = 0;
	int rc = cont(page * K4, pages * K4);

	while (step >= 0 && at < page + pages) {
		step = expect_step(at, page + pages);
		if (step > 0)
			at += (uint64_t)step;
	}
	if (at == page) {
		assert_int_equal(rc, step);
		assert_int_equal(done, step);
	} else {
		assert_int_equal(rc, at == page + pages ? 0 : -EAGAIN);
		assert_int_equal(done, (at - page) * K4);
	}
}

static void expect_unmapped(struct expected *b)
{
	b->leaf = false;
	memset(b->mapped, 0, sizeof(b->mapped));
}

static void check_collapse(uint64_t block, uint64_t blocks)
{
	assert_int_equal(collapse(block * M2, blocks * M2), 0);
	for (uint64_t i = block; i < block + blocks; i++) {
		struct expected *b = &want[i];

		if (!b->table)
			continue;
		expect_unmapped(b);
		b->table = false;
		b->leaf = b->cached;
	}
}

static void check_page_table(_Atomic uint64_t *random)
{
	uint64_t pmds = 0, ptes = 0, tables = 0;
	struct model_leaves l = model_leaves(s.primary, s.len);
	uint64_t page = mix(random) % (BLOCKS * PAGES);

	for (unsigned int i = 0; i < BLOCKS; i++) {
		pmds += want[i].leaf;
		tables += want[i].table;
		for (unsigned int p = 0; p < PAGES; p++)
			ptes += want[i].mapped[p];
	}
	assert_int_equal(l.pmd, pmds * M2);
	assert_int_equal(l.pte, ptes * K4);
	assert_int_equal(l.tables_4k, tables);
	/* Mapped pages can be read, although no thread serves faults. */
	if (want[page / PAGES].leaf || want[page / PAGES].mapped[page % PAGES])
		assert_int_equal((uint8_t)s.primary[page * K4 + 5], page % 251 + 1);
}

static void one_thread(void **state)
{
	_Atomic uint64_t random;

	(void)state;
	new_seed();
	random = seed;
	memset(want, 0, sizeof(want));
	scene(M2, BLOCKS);
	scene_split();
	scene_register(EXACT, MISSING | MINOR);
	for (unsigned int i = 0; i < STEPS; i++) {
		uint64_t block = mix(&random) % BLOCKS;
		uint64_t page = mix(&random) % (BLOCKS * PAGES);
		uint64_t most = BLOCKS * PAGES - page;

		switch (mix(&random) % 16) {
		case 0:
			if (!want[block].cached)
				fill(block * M2, M2);
			want[block].cached = true;
			break;
		case 1:
			assert_int_equal(advise(block * M2, M2, MADV_DONTNEED), 0);
			expect_unmapped(&want[block]);
			break;
		case 2:
			if (mix(&random) % 4)
				break;
			assert_int_equal(model_punch_hole(s.fd, block * M2, M2), 0);
			expect_unmapped(&want[block]);
			want[block].cached = false;
			break;
		case 3:
			check_collapse(block, 1 + mix(&random) % (BLOCKS - block));
			break;
		case 4:
			check_continue(block * PAGES,
				       PAGES * (1 + mix(&random) % (BLOCKS - block)));
			break;
		case 5:
			check_continue(page, 1 + mix(&random) % most);
			break;
		default:
			check_continue(page, 1 + mix(&random) % (most < 40 ? most : 40));
		}
		check_page_table(&random);
	}
}

#define TOUCHERS 3
#define SERVED	 100 /* at least */
#define TOUCHES	 6000

static struct {
	_Atomic uint64_t random;
	_Atomic bool stop;
	_Atomic unsigned int wrong;
	_Atomic uint64_t served;
} many;

static void *touches(void *arg)
{
	(void)arg;
	/* While the disturbing thread gets no CPU, there are no faults to serve. */
	for (unsigned int i = 0;
	     i < TOUCHES || (atomic_load(&many.served) <= SERVED && i < 1000 * TOUCHES); i++) {
		uint64_t page = mix(&many.random) % (BLOCKS * PAGES);
		volatile char *at = s.primary + page * K4;

		if ((uint8_t)at[5] != page % 251 + 1)
			atomic_fetch_add(&many.wrong, 1);
	}
	return NULL;
}

static void *serves(void *arg)
{
	struct pollfd p = { .fd = s.uffd, .events = POLLIN };
	struct uffd_msg msg[8];
	int64_t mapped;

	(void)arg;
	while (!atomic_load(&many.stop)) {
		ssize_t n;

		hgm_sys->poll(&p, 1, 1000000);
		n = hgm_sys->read(s.uffd, msg, sizeof(msg));
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
			char *at = (char *)(uintptr_t)(msg[i].arg.pagefault.address & ~(K4 - 1));

			if (hgm_sys->uffd_continue(s.uffd, at, K4, 0, &mapped))
				hgm_sys->uffd_wake(s.uffd, at, K4);
			atomic_fetch_add(&many.served, 1);
		}
	}
	return NULL;
}

static void *disturbs(void *arg)
{
	(void)arg;
	while (!atomic_load(&many.stop)) {
		uint64_t block = mix(&many.random) % BLOCKS;
		uint64_t page = mix(&many.random) % (BLOCKS * PAGES - 64);
		char *at = s.primary + block * M2;
		int64_t mapped;

		switch (mix(&many.random) % 4) {
		case 0:
			hgm_sys->madvise(at, M2, HGM_MADV_COLLAPSE);
			hgm_sys->uffd_wake(s.uffd, at, M2);
			break;
		case 1:
			hgm_sys->madvise(at, M2, MADV_DONTNEED);
			break;
		case 2:
			hgm_sys->uffd_continue(s.uffd, at, M2, 0, &mapped);
			break;
		default:
			hgm_sys->uffd_continue(s.uffd, s.primary + page * K4, 64 * K4, 0, &mapped);
		}
		usleep(100);
	}
	return NULL;
}

static uint64_t really_present(void)
{
	int fd = hgm_sys_linux.open("/proc/self/pagemap", 0);
	uint64_t n = 0, word;

	for (uint64_t at = 0; at < s.len; at += K4) {
		hgm_sys_linux.pread(fd, &word, 8, ((uintptr_t)s.primary + at) / K4 * 8);
		n += word >> 63;
	}
	hgm_sys_linux.close(fd);
	return n;
}

static void many_threads(void **state)
{
	pthread_t toucher[TOUCHERS], server[2], disturber;
	struct model_leaves l;

	(void)state;
	new_seed();
	many.random = seed;
	atomic_store(&many.stop, false);
	scene(M2, BLOCKS);
	scene_split();
	scene_register(EXACT, MISSING | MINOR);
	fill(0, s.len);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&server[i], NULL, serves, NULL), 0);
	for (int i = 0; i < TOUCHERS; i++)
		assert_int_equal(pthread_create(&toucher[i], NULL, touches, NULL), 0);
	assert_int_equal(pthread_create(&disturber, NULL, disturbs, NULL), 0);
	for (int i = 0; i < TOUCHERS; i++)
		pthread_join(toucher[i], NULL);
	atomic_store(&many.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(server[i], NULL);
	pthread_join(disturber, NULL);
	assert_int_equal(many.wrong, 0);
	assert_true(many.served > SERVED);
	l = model_leaves(s.primary, s.len);
	assert_int_equal(l.pmd + l.pte, really_present() * K4);
	assert_int_equal(pool_now(M2).free, 640 - BLOCKS);
}

static const struct CMUnitTest tests[] = {
	ON("hgm", one_thread),
	ON("hgm", many_threads),
	ON("hgm-next", many_threads),
};

TEST_MAIN(tests)
