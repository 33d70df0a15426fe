/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Native regions in the caller's mappings, and what does not become one: mappings that are split,
 * populated, registered or private already; pools without enough pages; kernels that look like HGM
 * and are not.
 */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define LENGTH (8 * MIB)

struct theirs {
	int fd;
	char *addr;
};

static void map_theirs(struct theirs *t, uint64_t length, int flags)
{
	void *at;

	t->fd = hgm_sys->memfd_create("theirs", MFD_HUGETLB);
	assert_true(t->fd >= 0);
	assert_ok(hgm_sys->ftruncate(t->fd, length));
	assert_ok(hgm_sys->mmap(&at, NULL, length, PROT_READ | PROT_WRITE, flags, t->fd, 0));
	t->addr = at;
}

static void unmap_theirs(struct theirs *t, uint64_t length)
{
	hgm_sys->munmap(t->addr, length);
	hgm_sys->close(t->fd);
}

static struct hgm_region_opts of_mapping(const struct theirs *t, uint64_t length,
					 const struct provider *provider)
{
	return (struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
					 .length = length,
					 .backing = HGM_BACKING_MAPPING,
					 .source = provider_source(provider),
					 .fd = t->fd,
					 .addr = t->addr };
}

static int other_uffd(void)
{
	uint64_t features = HGM_UFFD_FEATURE_EXACT_ADDRESS, ioctls;
	int fd = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	assert_ok(hgm_sys->uffd_api(fd, &features, &ioctls));
	return fd;
}

/* Write stale bytes to whole pages, and map them in 4 KiB pieces if @split. */
static void soil(const struct theirs *t, bool split)
{
	uint64_t ioctls;
	int64_t done;
	int fd;

	memset(t->addr, 0xee, LENGTH);
	if (!split)
		return;
	assert_ok(hgm_sys->madvise(t->addr, LENGTH, MADV_DONTNEED));
	fd = other_uffd();
	assert_ok(hgm_sys->uffd_register(fd, t->addr, LENGTH, HGM_UFFD_MINOR, &ioctls));
	for (uint64_t at = 0; at < LENGTH; at += 16 * PAGE)
		assert_ok(hgm_sys->uffd_continue(fd, t->addr + at, PAGE, 0, &done));
	assert_ok(hgm_sys->uffd_unregister(fd, t->addr, LENGTH));
	hgm_sys->close(fd);
	assert_int_equal(model_leaves(t->addr, LENGTH).pte, LENGTH / 16);
}

static void populated(bool split, uint64_t split_bytes)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &native_contents, LENGTH);
	struct plan plan = { .contents = &native_contents, .pages = LENGTH / PAGE };
	struct hgm *h = engine(2);
	struct touchers touchers;
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct native n;
	struct theirs t;

	map_theirs(&t, LENGTH, MAP_SHARED);
	if (split_bytes)
		assert_ok(hgm_sys->madvise(t.addr, split_bytes, HGM_MADV_SPLIT));
	soil(&t, split);
	records_forget();
	o = of_mapping(&t, LENGTH, provider);
	assert_ok(hgm_region_create(&r, h, &o));
	assert_int_equal(info_of(r).map_bytes, PAGE);
	assert_int_equal(calls_in(CALL_SPLIT, t.addr, LENGTH), split_bytes == LENGTH ? 0 : 1);
	assert_int_equal(model_leaves(t.addr, LENGTH).pmd + model_leaves(t.addr, LENGTH).pte, 0);
	plan.addr = t.addr;
	assert_ok(hgm_start(h));
	touchers_start(&touchers, 4, &plan);
	touchers_join(&touchers);
	assert_ok(hgm_wait(h, WAIT_MS));
	n = (struct native){
		.h = h, .provider = provider, .r = r, .addr = t.addr, .length = LENGTH
	};
	assert_all_huge(&n);
	native_free(&n);
	unmap_theirs(&t, LENGTH);
}

static void split_and_populated_before(void **state)
{
	(void)state;
	populated(false, 0);
	populated(false, LENGTH);
	populated(true, LENGTH);
	populated(false, LEAF); /* in part: it stays two VMAs for ever */
}

static void registered_elsewhere(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	int theirs_fd, probe;
	struct hgm *h = engine(2);
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct theirs t;
	uint64_t ioctls;

	(void)state;
	map_theirs(&t, LENGTH, MAP_SHARED);
	theirs_fd = other_uffd();
	assert_ok(hgm_sys->uffd_register(theirs_fd, t.addr + LENGTH - LEAF, LEAF, HGM_UFFD_MISSING,
					 &ioctls));
	o = of_mapping(&t, LENGTH, provider);
	assert_error(hgm_region_create(&r, h, &o), -EBUSY);
	/* The part that was registered before the failure is not registered any more. */
	probe = other_uffd();
	assert_ok(hgm_sys->uffd_register(probe, t.addr, LENGTH - LEAF, HGM_UFFD_MINOR, &ioctls));
	hgm_sys->close(probe);
	/* When the other userfaultfd is closed, the mapping can be used. */
	hgm_sys->close(theirs_fd);
	assert_ok(hgm_region_create(&r, h, &o));
	assert_int_equal(info_of(r).map_bytes, PAGE);
	hgm_region_destroy(r);
	hgm_destroy(h);
	provider_free(provider);
	unmap_theirs(&t, LENGTH);
}

static void says(const char *what)
{
	if (!strstr(hgm_errmsg(), what))
		fail_msg("no '%s' in: %s", what, hgm_errmsg());
}

static void private_or_not_aligned(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, GIB);
	struct hgm *h = engine(1);
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct theirs t;
	void *at;

	(void)state;
	map_theirs(&t, LENGTH, MAP_PRIVATE);
	o = of_mapping(&t, LENGTH, provider);
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	says("not a shared mapping of that descriptor");
	unmap_theirs(&t, LENGTH);

	map_theirs(&t, LENGTH, MAP_SHARED);
	o = of_mapping(&t, LENGTH - LEAF, provider);
	o.addr = t.addr + PAGE;
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	says("the huge page, of which hugetlb memory has no parts");
	o.addr = t.addr + LEAF; /* another part of the file */
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	o.fd_offset = PAGE;
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	o.fd_offset = LEAF;
	assert_ok(hgm_region_create(&r, h, &o));
	hgm_region_destroy(r);
	unmap_theirs(&t, LENGTH);

	assert_ok(hgm_sys->mmap(&at, NULL, LENGTH, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
	t = (struct theirs){ -1, at };
	o = of_mapping(&t, LENGTH, provider);
	assert_error(hgm_region_create(&r, h, &o), -EINVAL);
	hgm_sys->munmap(at, LENGTH);
	hgm_destroy(h);
	provider_free(provider);
}

static void assert_pool(const struct model_pool *before, uint64_t block)
{
	struct model_pool now = model_pool(block);

	assert_int_equal(now.total, before->total);
	assert_int_equal(now.free, before->free);
	assert_int_equal(now.promised, before->promised);
}

/* The pool has fewer pages than the region needs. */
static void too_small_a_pool(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	struct model_opts opts;
	struct hgm_region_opts o;
	struct model_pool pool;
	struct hgm_region *r;
	struct hgm *h;

	(void)state;
	assert_true(model_named("hgm", &opts));
	opts.pool_2m_pages = LENGTH / LEAF - 1;
	opts.pool_1g_pages = 0;
	native_begin(&opts);
	pool = model_pool(LEAF);
	h = engine(1);
	o = native_opts(HGM_BACKING_AUTO, LENGTH, provider);
	assert_ok(hgm_region_create(&r, h, &o));
	assert_int_equal(info_of(r).backing, HGM_BACKING_SHMEM);
	if (!strstr(info_of(r).sentence, "not enough free huge pages"))
		fail_msg("%s", info_of(r).sentence);
	assert_pool(&pool, LEAF);
	hgm_region_destroy(r);
	o = native_opts(HGM_BACKING_HUGETLB, LENGTH, provider);
	assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
	says("not enough free huge pages");
	o.block_bytes = GIB;
	o.length = GIB;
	assert_true(hgm_region_create(&r, h, &o) < 0);
	assert_pool(&pool, LEAF);
	hgm_destroy(h);
	provider_free(provider);
	native_end();
}

/* A pool that runs dry while the region is being prepared, as if the cgroup refused a page. */
static _Atomic int populated_blocks;

static int poor_madvise(void *addr, uint64_t len, int advice)
{
	if (advice == HGM_MADV_POPULATE_WRITE && len == LEAF &&
	    atomic_fetch_add(&populated_blocks, 1) >= 2)
		return -EFAULT;
	return model_kernel->madvise(addr, len, advice);
}

static void dry_while_prepared(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	struct hgm *h = engine(1);
	struct model_pool pool;
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct theirs t;

	(void)state;
	o = native_opts(HGM_BACKING_HUGETLB, LENGTH, provider);
	assert_ok(hgm_region_create(&r, h, &o)); /* makes the library test the kernel */
	hgm_region_destroy(r);
	pool = model_pool(LEAF);
	atomic_store(&populated_blocks, 0);
	meddling.madvise = poor_madvise;
	assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
	says("no huge page is free");
	assert_pool(&pool, LEAF);
	o.backing = HGM_BACKING_AUTO;
	atomic_store(&populated_blocks, 0);
	assert_ok(hgm_region_create(&r, h, &o));
	if (info_of(r).backing != HGM_BACKING_SHMEM ||
	    !strstr(info_of(r).sentence, "no huge page is free"))
		fail_msg("%s", info_of(r).sentence);
	hgm_region_destroy(r);
	assert_pool(&pool, LEAF);

	meddling.madvise = NULL;
	/* Without a reservation, the lack of pages does not show when the mapping is created. */
	map_theirs(&t, LENGTH, MAP_SHARED | MAP_NORESERVE);
	o = of_mapping(&t, LENGTH, provider);
	atomic_store(&populated_blocks, 0);
	meddling.madvise = poor_madvise;
	assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
	meddling.madvise = NULL;
	unmap_theirs(&t, LENGTH);
	assert_pool(&pool, LEAF);
	hgm_destroy(h);
	provider_free(provider);
}

static void a_mapping_that_reserved_nothing(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
	struct model_opts opts;
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct theirs t;
	struct hgm *h;

	(void)state;
	assert_true(model_named("hgm", &opts));
	opts.pool_2m_pages = LENGTH / LEAF - 1;
	native_begin(&opts);
	h = engine(1);
	map_theirs(&t, LENGTH, MAP_SHARED | MAP_NORESERVE);
	o = of_mapping(&t, LENGTH, provider);
	assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
	says("huge pages");
	unmap_theirs(&t, LENGTH);
	hgm_destroy(h);
	provider_free(provider);
	native_end();
}

struct guess {
	const char *base;
	const char *why; /* part of the sentence */
	int sysfs;
	bool hgm_off, advice_means_else, no_hm, continue_4k_fails;
};

/* Each is recognized before the guest starts, and takes nothing from the pool. */
static void wrong_guesses(void **state)
{
	static const struct guess guesses[] = {
		{ "hgm", "hgm.split", -1, .no_hm = true },
		{ "hgm-next", "hgm.split", -1, .no_hm = true },
		{ "hgm", "EINVAL, though MADV_SPLIT was accepted", -1, .continue_4k_fails = true },
		{ "stock", "hgm.split", -1, .advice_means_else = true },
		{ "stock-6.1", "hgm.split", -1, .advice_means_else = true },
		{ "stock", "hgm.split", 1, .advice_means_else = true },
		{ "stock", "hgm.advice", 1 },
		{ "stock", "hgm.advice", -1 }, /* which has bit 13 */
		{ "hgm", "switched off", 0 },
		{ "rfc", "hgm.advice", 1, .continue_4k_fails = true },
		{ "rfc", "switched off", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(guesses) / sizeof(guesses[0]); i++) {
		const struct guess *g = &guesses[i];
		struct provider *provider = provider_make(PROVIDER_NOW, &native_contents, LENGTH);
		struct model_pool pool, pool_1g;
		struct hgm_region_opts o;
		struct model_opts opts;
		struct hgm_region *r;
		struct hgm *h;

		assert_true(model_named(g->base, &opts));
		opts.sysfs = g->sysfs;
		opts.no_hm = g->no_hm;
		opts.advice_means_else = g->advice_means_else;
		opts.continue_4k_fails = g->continue_4k_fails;
		native_begin(&opts);
		pool = model_pool(LEAF);
		pool_1g = model_pool(GIB);
		h = engine(1);
		o = native_opts(HGM_BACKING_AUTO, LENGTH, provider);
		assert_ok(hgm_region_create(&r, h, &o));
		if (info_of(r).backing != HGM_BACKING_SHMEM || !strstr(info_of(r).sentence, g->why))
			fail_msg("guess %zu: %s", i, info_of(r).sentence);
		hgm_region_destroy(r);
		o = native_opts(HGM_BACKING_HUGETLB, LENGTH, provider);
		assert_ok(hgm_region_create(&r, h, &o));
		if (info_of(r).map_bytes != LEAF || !strstr(info_of(r).sentence, g->why))
			fail_msg("guess %zu: %s", i, info_of(r).sentence);
		assert_ok(hgm_start(h));
		assert_ok(hgm_wait(h, WAIT_MS));
		assert_pages(&native_contents, 0, LENGTH / PAGE, hgm_region_addr(r));
		hgm_region_destroy(r);
		o.map_bytes_max = PAGE;
		assert_error(hgm_region_create(&r, h, &o), -EOPNOTSUPP);
		says(g->why);
		says("2048 kB");
		hgm_destroy(h);
		assert_pool(&pool, LEAF);
		assert_pool(&pool_1g, GIB);
		provider_free(provider);
		native_end();
	}
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(split_and_populated_before), ON_BOTH(registered_elsewhere),
	ON_BOTH(private_or_not_aligned),     ON_BOTH(dry_while_prepared),
	cmocka_unit_test(too_small_a_pool),  cmocka_unit_test(a_mapping_that_reserved_nothing),
	cmocka_unit_test(wrong_guesses),
};

TEST_MAIN(tests)
