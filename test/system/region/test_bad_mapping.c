/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mappings and sources that do not fit together. Memory that is not what the caller says would be
 * served with wrong bytes or silent zeroes, so it must be refused.
 */
#include "harness.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH (4 * MIB)

static const struct contents contents = { .seed = 31 };

struct scene {
	struct hgm *h;
	struct provider *provider;
	int fd, other_fd, private_fd;
	char *shared, *private, *anon;
};

static struct scene s;

static char *map(int flags, int fd, uint64_t offset)
{
	char *raw = mmap(NULL, LENGTH + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = raw + (-(uintptr_t)raw & (2 * MIB - 1));

	assert_ptr_equal(
		mmap(at, LENGTH, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset), at);
	return at;
}

static int set_up(void **state)
{
	struct ram ram;

	(void)state;
	watch("bad mappings", 100);
	s.h = engine(1);
	assert_ok(hgm_start(s.h));
	s.provider = provider_make(PROVIDER_NOW, &contents, 16 * MIB);
	s.fd = memfd_create("a", MFD_CLOEXEC);
	s.other_fd = memfd_create("b", MFD_CLOEXEC);
	assert_int_equal(ftruncate(s.fd, (off_t)(4 * LENGTH)), 0);
	assert_int_equal(ftruncate(s.other_fd, (off_t)(4 * LENGTH)), 0);
	s.shared = map(MAP_SHARED, s.fd, 0);
	s.private = map(MAP_PRIVATE, s.fd, 0);
	s.anon = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* The engine keeps its buffers from the first region that needs them. */
	assert_ok(ram_try(&ram, s.h, BACKING_ANON, PAGE, provider_source(s.provider), 0, 0));
	ram_end(&ram);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hgm_destroy(s.h);
	munmap(s.shared, LENGTH);
	munmap(s.private, LENGTH);
	munmap(s.anon, LENGTH);
	close(s.fd);
	close(s.other_fd);
	provider_free(s.provider);
	calm();
	return 0;
}

static struct hgm_region_opts mapping(void *addr, int fd, uint32_t flags)
{
	return (struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
					 .length = LENGTH,
					 .source = provider_source(s.provider),
					 .backing = HGM_BACKING_MAPPING,
					 .flags = flags,
					 .addr = addr,
					 .fd = fd };
}

static void refused(const char *what, const struct hgm_region_opts *o, int want)
{
	struct hgm_region *r = NULL;
	struct holdings before = take_holdings();
	int rc;

	hgm_fail(0, "%s", "");
	rc = hgm_region_create(&r, s.h, o);
	if (!rc)
		fail_msg("%s: was taken", what);
	if ((want && rc != want) || strlen(hgm_errmsg()) < 20)
		fail_msg("%s: %d instead of %d: %s", what, rc, want, hgm_errmsg());
	assert_same_holdings(&before);
}

/* The mapping of good() must still be usable afterwards. */
static void still_served(void)
{
	struct hgm_region_opts o = mapping(s.shared, s.fd, 0);
	struct hgm_region *r;

	assert_ok(hgm_region_create(&r, s.h, &o));
	assert_pages(&contents, 0, LENGTH / PAGE, s.shared);
	hgm_region_destroy(r);
	assert_pages(&contents, 0, LENGTH / PAGE, s.shared);
}

static void not_what_it_is_said_to_be(void **state)
{
	struct hgm_region_opts o;

	(void)state;
	still_served();
	still_served();
	for (uint32_t flags = 0; flags <= HGM_REGION_LAZY; flags++) {
		o = mapping(s.shared, s.other_fd, flags);
		refused("the descriptor of another file", &o, -EINVAL);
		o = mapping(s.shared, s.fd, flags);
		o.fd_offset = LENGTH;
		refused("another offset of the file", &o, -EINVAL);
		o = mapping(s.anon, s.fd, flags);
		refused("anonymous memory, but a descriptor", &o, -EINVAL);
		o = mapping(s.private, s.fd, flags);
		refused("a private mapping of the file", &o, -EINVAL);
		o = mapping(s.shared, -1, flags);
		refused("a file's mapping without a descriptor", &o, -EINVAL);
	}
	still_served();
}

static void not_where_it_is_said_to_be(void **state)
{
	struct hgm_region_opts o;
	char *gap = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	still_served();
	still_served();
	o = mapping(NULL, -1, 0);
	refused("no address", &o, -EINVAL);
	o = mapping(s.shared + PAGE / 2, s.fd, 0);
	o.length = MIB;
	refused("not aligned to a page", &o, -EINVAL);
	o = mapping(s.shared + PAGE, s.fd, 0);
	o.length = MIB;
	refused("a page further on", &o, -EINVAL);
	o = mapping((void *)(UINTPTR_MAX & ~(2 * MIB - 1)), -1, 0);
	refused("at the end of the address space", &o, 0);
	munmap(gap + MIB, PAGE);
	o = mapping(gap, -1, 0);
	refused("a hole in it", &o, 0);
	munmap(gap, LENGTH);
	refused("nothing there", &o, 0);
	still_served();
}

static void served_already(void **state)
{
	struct hgm_uffd_opts uo = { .size = sizeof(uo) };
	struct hgm_region_opts o = mapping(s.anon, -1, 0);
	struct hgm_region *r;
	struct hgm_uffd *u;
	struct hgm *h2;

	(void)state;
	still_served();
	still_served();
	assert_ok(hgm_uffd_open(&u, &uo));
	assert_ok(hgm_uffd_register(u, s.anon, LENGTH, HGM_UFFD_MISSING, NULL));
	refused("another userfaultfd has it", &o, -EBUSY);
	hgm_uffd_close(u);

	h2 = engine(1);
	assert_ok(hgm_region_create(&r, h2, &o));
	refused("another engine has it", &o, -EBUSY);
	hgm_destroy(h2);

	/* A second region on the same memory would take it away from the first. */
	munmap(s.anon, LENGTH);
	s.anon = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	o = mapping(s.anon, -1, 0);
	assert_ok(hgm_region_create(&r, s.h, &o));
	assert_pages(&contents, 0, 10, s.anon);
	refused("this engine has it", &o, 0);
	o.addr = s.anon + 2 * MIB;
	o.length = MIB;
	refused("this engine has a part of it", &o, 0);
	assert_pages(&contents, 0, LENGTH / PAGE, s.anon);
	hgm_region_destroy(r);
	still_served();
}

/* The engine's threads must never wait for themselves. */
static void sources_inside_regions(void **state)
{
	struct hgm_region_opts o = mapping(s.anon, -1, 0);
	struct hgm_source *inside;
	struct hgm_region *r, *r2;

	(void)state;
	still_served();
	still_served();
	assert_ok(hgm_region_create(&r, s.h, &o));
	assert_ok(hgm_source_memory(&inside, s.anon + MIB, MIB));
	o = mapping(s.shared, s.fd, 0);
	o.source = inside;
	o.length = MIB;
	refused("a source in a region of the engine", &o, -EINVAL);
	hgm_region_destroy(r);

	o = mapping(s.anon, -1, 0);
	o.source = inside;
	o.length = MIB;
	munmap(s.anon, LENGTH);
	s.anon = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	o.addr = s.anon;
	hgm_source_destroy(inside);
	assert_ok(hgm_source_memory(&inside, s.anon, MIB));
	o.source = inside;
	refused("a source that is the region", &o, -EINVAL);

	/* The other way round: first the source's region, then one over the source. */
	contents_write(&contents, 0, MIB / PAGE, s.anon);
	o = mapping(s.shared, s.fd, 0);
	o.source = inside;
	o.length = MIB;
	o.flags = HGM_REGION_NO_FILL;
	assert_ok(hgm_region_create(&r2, s.h, &o));
	o = mapping(s.anon, -1, 0);
	refused("over the memory of a source of this engine", &o, -EINVAL);
	assert_pages(&contents, 0, MIB / PAGE, s.shared);
	hgm_region_destroy(r2);
	hgm_source_destroy(inside);
}

static void too_many_regions(void **state)
{
	static struct hgm_region *r[1100];
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = PAGE,
				     .source = provider_source(s.provider),
				     .backing = HGM_BACKING_ANON,
				     .flags = HGM_REGION_NO_FILL };
	unsigned int n = 0;
	int rc = 0;

	(void)state;
	while (n < 1100) {
		rc = hgm_region_create(&r[n], s.h, &o);
		if (rc)
			break;
		n++;
	}
	assert_int_equal(n, 1024);
	assert_int_equal(rc, -ENOSPC);
	refused("region 1025", &o, -ENOSPC);
	for (unsigned int i = 0; i < n; i += 100)
		assert_pages(&contents, 0, 1, hgm_region_addr(r[i]));
	for (unsigned int i = 0; i < n; i++)
		hgm_region_destroy(r[i]);
	still_served();
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(not_what_it_is_said_to_be, set_up, tear_down),
	cmocka_unit_test_setup_teardown(not_where_it_is_said_to_be, set_up, tear_down),
	cmocka_unit_test_setup_teardown(served_already, set_up, tear_down),
	cmocka_unit_test_setup_teardown(sources_inside_regions, set_up, tear_down),
	cmocka_unit_test_setup_teardown(too_many_regions, set_up, tear_down),
};

TEST_MAIN(tests)
