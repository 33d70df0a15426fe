/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks in which something has gone wrong: an empty page table in the place of a leaf, and memory
 * that was discarded before, while and after it became huge. All bytes are right, discarded memory
 * reads as zero, no thread hangs, and the block becomes huge in the end.
 */
#include "native.h"

#include <errno.h>
#include <sys/mman.h>

#define LENGTH (8 * MIB)

static void punch(const struct native *n, uint64_t offset, uint64_t len)
{
	assert_int_equal(model_punch_hole(n->r->fd, offset, len), 0);
}

static void assert_zero(const char *at, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += 512)
		if (at[i])
			fail_msg("discarded memory is not zero at %p", (const void *)(at + i));
}

/* A 4 KiB CONTINUE that finds no page in the page cache leaves an empty table behind. */
static void spoil(const struct native *n, uint64_t offset)
{
	uint64_t block = info_of(n->r).block_bytes;
	int64_t done;
	void *other;

	punch(n, offset / block * block, block);
	assert_int_equal(
		hgm_sys->uffd_continue(hgm_uffd_fd(hgm_view_uffd(&n->r->view, offset / PAGE)),
				       n->addr + offset, PAGE, 0, &done),
		-EFAULT);
	/* Use another mapping: through the alias the library would find it discarded. */
	assert_ok(hgm_sys->mmap(&other, NULL, block, PROT_READ | PROT_WRITE, MAP_SHARED, n->r->fd,
				offset / block * block));
	assert_ok(hgm_sys->madvise(other, block, HGM_MADV_POPULATE_WRITE));
	assert_ok(hgm_sys->munmap(other, block));
	/* Nor may it look discarded: map it in the alias, as it was. */
	assert_ok(hgm_sys->madvise(n->r->alias + offset / block * block, block,
				   HGM_MADV_POPULATE_READ));
}

static void empty_tables(uint64_t block, uint32_t flags)
{
	uint64_t length = block == GIB ? GIB : LENGTH;
	struct touchers touchers;
	struct plan plan = { .contents = &native_contents, .pages = length / PAGE, .write = true };
	struct native n;

	if (block == GIB)
		plan.step = 4099;
	native_make(&n, block, length, PROVIDER_LATER, flags);
	spoil(&n, 2 * LEAF + 7 * PAGE);
	assert_int_equal(leaves_of(&n).tables_4k, 1);
	assert_int_equal(leaves_of(&n).pte, 0);
	plan.addr = n.addr;
	assert_ok(hgm_start(n.h));
	touchers_start(&touchers, 2, &plan);
	touchers_join(&touchers);
	assert_ok(hgm_wait(n.h, WAIT_MS));
	if (flags)
		assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_all_huge(&n);
	native_free(&n);
}

static void an_empty_table(void **state)
{
	(void)state;
	empty_tables(LEAF, 0);
	empty_tables(LEAF, HGM_REGION_DEFER_COLLAPSE);
}

__attribute__((unused)) static void an_empty_table_in_1g(void **state)
{
	(void)state;
	empty_tables(GIB, HGM_REGION_DEFER_COLLAPSE);
}

/* Without a touch, each page of the spoiled leaf is mapped nevertheless, including the first. */
static void pieces_of_an_empty_table(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_DEFER_COLLAPSE);
	spoil(&n, LEAF);
	assert_ok(hgm_start(n.h));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(leaves_of(&n).pmd, LENGTH - LEAF);
	assert_int_equal(leaves_of(&n).pte, LEAF);
	assert_true(page_mapped(n.addr + LEAF));
	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_all_huge(&n);
	native_free(&n);
}

/* Discarded by a punched hole, after it arrived and before it was collapsed. */
static void a_hole_before_the_collapse(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(n.h));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	punch(&n, LEAF, LEAF);
	assert_zero(n.addr + LEAF, LEAF);
	assert_ok(hgm_region_collapse(n.r));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(info_of(n.r).huge_bytes, LENGTH);
	assert_int_equal(leaves_of(&n).pmd, LENGTH);
	assert_zero(n.addr + LEAF, LEAF);
	assert_pages(&native_contents, 0, LEAF / PAGE, n.addr);
	assert_pages(&native_contents, 2 * LEAF / PAGE, (LENGTH - 2 * LEAF) / PAGE,
		     n.addr + 2 * LEAF);
	native_free(&n);
}

static bool all_pmd(void *arg)
{
	const struct native *n = arg;

	return leaves_of(n).pmd == n->length && info_of(n->r).huge_bytes == n->length;
}

/* The same when it was huge already. */
static void a_hole_in_a_huge_block(void **state)
{
	struct native n;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, 0);
	assert_ok(hgm_start(n.h));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	punch(&n, LEAF, LEAF);
	assert_int_equal(leaves_of(&n).pmd, LENGTH - LEAF);
	assert_zero(n.addr + LEAF, LEAF);
	assert_true(eventually(all_pmd, &n, 5000));
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_int_equal(info_of(n.r).left_split, 0);
	assert_zero(n.addr + LEAF, LEAF);
	native_free(&n);
}

/* Mappings, not contents, are dropped: of huge and small leaves, and with an empty table. */
static void dont_need(void **state)
{
	struct native n;
	uint8_t value;

	(void)state;
	native_make(&n, LEAF, LENGTH, PROVIDER_NOW, HGM_REGION_NO_FILL | HGM_REGION_DEFER_COLLAPSE);
	assert_ok(hgm_start(n.h));
	assert_int_equal(touch(n.addr + LEAF, &value), 0);
	fetch(&n, 0, LENGTH / PAGE);
	assert_ok(hgm_sys->madvise(n.addr, LENGTH, MADV_DONTNEED));
	assert_int_equal(leaves_of(&n).pmd + leaves_of(&n).pte, 0);
	assert_int_equal(leaves_of(&n).tables_4k, 1);
	assert_pages(&native_contents, 0, LENGTH / PAGE, n.addr);
	assert_ok(hgm_sys->madvise(n.addr, LENGTH, MADV_DONTNEED));
	assert_ok(hgm_region_collapse(n.r)); /* with nothing mapped at all */
	assert_ok(hgm_wait(n.h, WAIT_MS));
	assert_all_huge(&n);
	assert_ok(hgm_sys->madvise(n.addr + LEAF, LEAF, MADV_DONTNEED));
	assert_int_equal(leaves_of(&n).pmd, LENGTH - LEAF);
	assert_all_huge(&n);
	assert_int_equal(info_of(n.r).left_split, 0);
	native_free(&n);
}

/* Discarded between arrival and mapping, and never touched: nothing waits for ever. */
static struct native *punched;
static _Atomic int armed;

static int punching_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int want = 1;

	if (addr == punched->addr + LEAF && len == LEAF &&
	    atomic_compare_exchange_strong(&armed, &want, 2))
		model_punch_hole(punched->r->fd, LEAF, LEAF);
	return model_kernel->uffd_continue(fd, addr, len, mode, done);
}

static void a_hole_before_it_was_mapped(void **state)
{
	struct native n;

	(void)state;
	for (int defer = 0; defer < 2; defer++) {
		native_make(&n, LEAF, LENGTH, PROVIDER_NOW, defer ? HGM_REGION_DEFER_COLLAPSE : 0);
		punched = &n;
		atomic_store(&armed, 1);
		meddling.uffd_continue = punching_continue;
		assert_ok(hgm_start(n.h));
		assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_int_equal(atomic_load(&armed), 2);
		assert_zero(n.addr + LEAF, LEAF);
		assert_pages(&native_contents, 0, LEAF / PAGE, n.addr);
		if (defer)
			assert_ok(hgm_region_collapse(n.r));
		assert_ok(hgm_wait(n.h, WAIT_MS));
		assert_true(eventually(all_pmd, &n, 3000));
		native_free(&n);
	}
}

static const struct CMUnitTest tests[] = {
	ON_BOTH(an_empty_table),
	ON_BOTH(pieces_of_an_empty_table),
	ON_BOTH(a_hole_before_the_collapse),
	ON_BOTH(a_hole_in_a_huge_block),
	ON_BOTH(a_hole_before_it_was_mapped),
	ON_BOTH(dont_need),
#if !SANITIZED
	{ "an_empty_table_in_1g", an_empty_table_in_1g, on_hgm, off, NULL },
#endif
};

TEST_MAIN(tests)
