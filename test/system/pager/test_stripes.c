/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several fault threads. Each one has stripes of every region, serves them, and has counters of its
 * own.
 */
#include "harness.h"
#include "region/hgm.h"

#include <errno.h>

#include "kernel/sys.h"

#define FAULT_THREADS 12
#define BLOCKS	      UINT64_C(16) /* one stripe each; some threads have two */
#define EACH	      UINT64_C(32) /* pages of a block that are touched */
#define LENGTH	      (BLOCKS * 2 * MIB)
#define TOUCHERS      4

static const struct contents contents = { .seed = 131 };

/* A page counts once, however many threads fault on it. */
static uint64_t demanded_in(const struct hgm *h, unsigned int shard)
{
	return atomic_load(&h->stats.shard[shard].counter[HGM_STAT_FAULTS_DEMAND]);
}

static uint64_t demanded_of(unsigned int fault_thread)
{
	return (1 + (fault_thread + FAULT_THREADS < BLOCKS)) * EACH;
}

/* A fault is counted when it is done. The thread that waits for the page is awake by then. */
static bool all_are_counted(void *arg)
{
	return stats_of(arg).faults_demand == BLOCKS * EACH;
}

static void each_thread_counts_its_stripes(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(FAULT_THREADS);
	struct plan plan = { .contents = &contents,
			     .pages = LENGTH / PAGE,
			     .step = 2 * MIB / PAGE / EACH };
	struct touchers touchers;
	struct ram ram;

	(void)state;
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider),
		 HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_start(h));
	plan.addr = ram.addr;
	touchers_start(&touchers, TOUCHERS, &plan);
	touchers_join(&touchers);
	assert_true(eventually(all_are_counted, h, 5000));
	for (unsigned int i = 0; i < FAULT_THREADS; i++)
		assert_int_equal(demanded_in(h, i), demanded_of(i));
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

static int64_t give_zeroes(void *user, const struct hgm_io *io)
{
	(void)user;
	return (int64_t)io->length | HGM_IO_ZERO;
}

#define LARGE	    (UINT64_C(1) << (SANITIZED ? 36 : 40))
#define SPAN	    (LARGE / 64) /* the part that the guest uses */
#define FEW_THREADS 4
#define TOUCHES	    400

/* However large a region is, the faults of a part of it are not all served by one thread. */
static void a_part_of_a_large_region(void **state)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm *h = engine(FEW_THREADS);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = LARGE,
				     .backing = HGM_BACKING_ANON,
				     .flags = HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE };

	(void)state;
	assert_ok(hgm_source_fn(&src, give_zeroes, NULL, NULL));
	o.source = src;
	assert_ok(hgm_region_create(&r, h, &o));
	assert_ok(hgm_start(h));
	for (uint64_t i = 0; i < TOUCHES; i++)
		assert_int_equal(
			*((volatile char *)hgm_region_addr(r) + mix(i) % (SPAN / PAGE) * PAGE), 0);
	for (unsigned int i = 0; i < FEW_THREADS; i++)
		assert_true(demanded_in(h, i) > TOUCHES / FEW_THREADS / 2);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

#define MANY	    HGM_REGIONS_MAX
#define MANY_LENGTH (UINT64_C(128) * MIB)
#define AREAS_MOST  UINT64_C(34000) /* of MANY regions of anonymous memory */

/* The number that vm.max_map_count limits. */
static uint64_t areas_now(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t areas = 0;
	int c;

	assert_non_null(maps);
	while ((c = getc(maps)) != EOF)
		areas += c == '\n';
	fclose(maps);
	return areas;
}

/*
 * As many regions as an engine may have, each large enough for many stripes. There are enough
 * memory areas for all.
 */
static void many_regions(void **state)
{
	static struct hgm_region *r[MANY];
	uint64_t before = areas_now(), areas;
	struct hgm_source *src;
	struct hgm *h = engine(FEW_THREADS);
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = MANY_LENGTH,
				     .backing = HGM_BACKING_ANON,
				     .flags = HGM_REGION_NO_FILL | HGM_REGION_NO_COLLAPSE };

	(void)state;
	assert_ok(hgm_source_fn(&src, give_zeroes, NULL, NULL));
	o.source = src;
	for (unsigned int i = 0; i < MANY; i++)
		assert_ok(hgm_region_create(&r[i], h, &o));
	assert_true(r[0]->view.areas > r[MANY - 1]->view.areas);
	/*
	 * The limit of libhgm(7), LIMITS, and what malloc and threads map. A sanitizer has many
	 * areas of its own.
	 */
	areas = areas_now() - before;
	if (areas < atomic_load(&h->space.areas) || (!SANITIZED && areas > AREAS_MOST + MANY))
		fail_msg("%llu memory areas more, of %llu that are counted",
			 (unsigned long long)areas,
			 (unsigned long long)atomic_load(&h->space.areas));
	assert_ok(hgm_start(h));
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(*((volatile char *)hgm_region_addr(r[i]) + MANY_LENGTH - 1), 0);
	for (unsigned int i = 0; i < MANY; i++)
		hgm_region_destroy(r[i]);
	assert_int_equal(atomic_load(&h->space.areas), 0);
	hgm_destroy(h);
	hgm_source_destroy(src);
}

static struct {
	bool mmap, uffd_register;
} full;
static const struct hgm_sys *kernel;

static int odd_mmap(void **out, void *addr, uint64_t len, int prot, int flags, int fd,
		    uint64_t offset)
{
	return full.mmap && len >= MANY_LENGTH
		       ? -ENOMEM
		       : kernel->mmap(out, addr, len, prot, flags, fd, offset);
}

static int odd_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	return full.uffd_register ? -ENOMEM : kernel->uffd_register(fd, addr, len, modes, ioctls);
}

/*
 * A process that has as many memory areas as are allowed is told which limit to raise, whichever
 * call is refused.
 */
static void no_areas_left(void **state)
{
	struct hgm_sys sys = *hgm_sys;
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm *h;
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = MANY_LENGTH,
				     .backing = HGM_BACKING_ANON };

	(void)state;
	kernel = hgm_sys;
	sys.mmap = odd_mmap;
	sys.uffd_register = odd_register;
	hgm_sys = &sys;
	h = engine(FEW_THREADS);
	assert_ok(hgm_source_fn(&src, give_zeroes, NULL, NULL));
	o.source = src;
	for (unsigned int i = 0; i < 2; i++) {
		full.mmap = i;
		full.uffd_register = !i;
		assert_error(hgm_region_create(&r, h, &o), -ENOMEM);
		assert_non_null(strstr(hgm_errmsg(), "vm.max_map_count"));
	}
	full.mmap = false;
	assert_ok(hgm_region_create(&r, h, &o));
	hgm_destroy(h);
	hgm_source_destroy(src);
	hgm_sys = kernel;
}

static int set_up(void **state)
{
	(void)state;
	watch("several fault threads", 60);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	calm();
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(each_thread_counts_its_stripes, set_up, tear_down),
	cmocka_unit_test_setup_teardown(a_part_of_a_large_region, set_up, tear_down),
	cmocka_unit_test_setup_teardown(many_regions, set_up, tear_down),
	cmocka_unit_test_setup_teardown(no_areas_left, set_up, tear_down),
};

TEST_MAIN(tests)
