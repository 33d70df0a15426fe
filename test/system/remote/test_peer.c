/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of other processes, which know nothing of the library: all their bytes are right, their
 * blocks become huge, what they drop reads as zeroes, and when one of them goes, the others are
 * served on.
 */
#include "region/hgm.h"
#include "served.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Threads of the process touch all pages while they arrive, from each kind of source. */
static void every_byte(void **state)
{
	(void)state;
	for (enum provider_kind kind = 0; kind < PROVIDER_KINDS; kind++) {
		struct scene s;

		scene_begin(&s, kind, 0);
		assert_int_equal(vmm_do(&s.vmm, VMM_TOUCH, 8, 0), 0);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, PAGES), 0);
		assert_int_equal(info_of(s.region).present_bytes, LENGTH);
		assert_ptr_equal(hgm_region_addr(s.region), s.vmm.addr);
		scene_end(&s);
	}
}

static void on_demand(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_MIXED, HGM_REGION_NO_FILL);
	assert_int_equal(vmm_do(&s.vmm, VMM_TOUCH, 8, 0), 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, PAGES), 0);
	scene_end(&s);
}

static void blocks_become_huge(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_non_null(strstr(info_of(s.region).sentence, "memory of another process"));
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_blocks_huge(&s, LENGTH);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, PAGES), 0);
	assert_int_equal(peer_info(s.peer).verify_error,
			 kernel_has(KERNEL_PAGEMAP_SCAN) ? 0 : -EOPNOTSUPP);
	scene_end(&s);
}

/* Memory that begins and ends in the middle of a block. */
static void unaligned(void **state)
{
	struct vmm_opts o = { .length = LENGTH - 5 * PAGE, .misaligned = 3 * PAGE };
	struct scene s;

	(void)state;
	scene_begin_with(&s, &o, PROVIDER_LATER, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_blocks_huge(&s, LENGTH - 4 * MIB);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, o.length / PAGE), 0);
	scene_end(&s);
}

/* What the process drops reads as zeroes, whether it had arrived or not. */
static void discards(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_NEVER, 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_DISCARD, 10, 20), 0);
	provider_answer_below(s.provider, PAGES);
	provider_give(s.provider);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_ZEROES, 10, 20), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 10), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 20, PAGES), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_DISCARD, 1000, 2000), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_ZEROES, 1000, 2000), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 2000, PAGES), 0);
	assert_int_equal(stats_of(s.h).poisoned_pages, 0);
	scene_end(&s);
}

/* Threads of the process read, write and drop pages while they arrive, and are copied in. */
static void churning(void **state)
{
	static const enum provider_kind kinds[] = { PROVIDER_MEMORY, PROVIDER_MIXED,
						    PROVIDER_LATER };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct scene s;

		scene_begin(&s, kinds[i], 0);
		assert_int_equal(vmm_do(&s.vmm, VMM_CHURN, 8, SMALLER(20000, 1000)), 0);
		assert_ok(hgm_wait(s.h, WAIT_MS));
		assert_int_equal(stats_of(s.h).poisoned_pages, 0);
		scene_end(&s);
	}
}

static bool is_gone(void *arg)
{
	return peer_info(arg).state == -ESRCH;
}

static bool is_told(const struct hgm *h)
{
	struct pollfd fd = { .fd = hgm_event_fd(h), .events = POLLIN };

	return poll(&fd, 1, (int)WAIT_MS) == 1;
}

/*
 * One of two processes exits, or runs another program, while threads wait for its pages. The other
 * is served on.
 */
static void one_goes(enum vmm_op how)
{
	struct scene s, other = { 0 };
	struct hgm_region_opts ro;
	struct hgm_region *late;
	siginfo_t exited;

	scene_begin(&s, PROVIDER_NEVER, 0);
	other.h = s.h;
	vmm_start(&other.vmm, &(struct vmm_opts){ .length = LENGTH });
	other.provider = provider_make(PROVIDER_LATER, &vmm_contents, LENGTH);
	other.peer = peer_of(s.h, &other.vmm);
	ro = peer_region_opts(&other, 0);
	assert_ok(hgm_region_create(&other.region, s.h, &ro));

	vmm_tell(&s.vmm, how, 0, 0);
	if (how == VMM_EXIT)
		assert_int_equal(waitid(P_PID, (id_t)s.vmm.pid, &exited, WEXITED | WNOWAIT), 0);
	/* That there is another program is seen when a page is copied in. */
	while (how == VMM_EXEC && !is_gone(s.peer)) {
		provider_answer_below(s.provider, PAGES);
		provider_give(s.provider);
		nap_us(1000);
	}
	assert_true(eventually(is_gone, s.peer, WAIT_MS));
	assert_true(is_told(s.h));
	assert_int_equal(peer_info(other.peer).state, 0);
	assert_int_equal(vmm_do(&other.vmm, VMM_TOUCH, 4, 0), 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	ro = peer_region_opts(&s, 0);
	assert_error(hgm_region_create(&late, s.h, &ro), -ESRCH);
	hgm_peer_destroy(s.peer);
	assert_int_equal(vmm_do(&other.vmm, VMM_CHECK, 0, PAGES), 0);
	hgm_destroy(s.h);
	provider_free(s.provider);
	provider_free(other.provider);
	vmm_end(&s.vmm);
	vmm_end(&other.vmm);
	calm();
}

static void one_exits(void **state)
{
	(void)state;
	one_goes(VMM_EXIT);
}

static void one_runs_another_program(void **state)
{
	(void)state;
	one_goes(VMM_EXEC);
}

/* A process with memory at @at, if it has room there. */
static bool vmm_at(struct vmm *v, char *at, uint64_t first_page)
{
	vmm_start(v, &(struct vmm_opts){ .length = LENGTH, .at = at, .first_page = first_page });
	if (v->addr == at)
		return true;
	vmm_end(v);
	return false;
}

/* Memory of this process and of two others, all at the same address. */
static char *three_at_once(struct vmm *a, struct vmm *b)
{
	for (uint64_t at = 0x7e9000000000; at < 0x7f0000000000; at += 8 * GIB) {
		char *here = mmap((void *)at, LENGTH, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (here == MAP_FAILED)
			continue;
		if (here == (char *)at && vmm_at(a, here, 0)) {
			if (vmm_at(b, here, PAGES))
				return here;
			vmm_end(a);
		}
		munmap(here, LENGTH);
	}
	fail_msg("no address is free in three processes");
	return NULL;
}

static void same_addresses(void **state)
{
	struct hgm_region_opts ro;
	struct hgm_region *mine;
	struct scene s, other;
	char *here;

	(void)state;
	watch("the same addresses", 120);
	here = three_at_once(&s.vmm, &other.vmm);
	scene_serve(&s, PROVIDER_NEVER, 0);
	other.h = s.h;
	other.peer = peer_of(s.h, &other.vmm);
	other.provider = provider_make(PROVIDER_LATER, &vmm_contents, 3 * LENGTH);
	ro = peer_region_opts(&other, 0);
	ro.source_offset = LENGTH;
	assert_ok(hgm_region_create(&other.region, s.h, &ro));
	ro.source_offset = 2 * LENGTH;
	ro.backing = HGM_BACKING_MAPPING;
	ro.peer = NULL;
	ro.fd = -1;
	assert_ok(hgm_region_create(&mine, s.h, &ro));
	vmm_tell(&s.vmm, VMM_TOUCH, 2, 0);
	vmm_tell(&other.vmm, VMM_TOUCH, 2, 0);
	provider_answer_below(s.provider, PAGES);
	provider_give(s.provider);
	assert_pages(&vmm_contents, 2 * PAGES, PAGES, here);
	assert_int_equal(vmm_answer(&s.vmm), 0);
	assert_int_equal(vmm_answer(&other.vmm), 0);
	/* What one of them drops, the others keep. */
	assert_int_equal(vmm_do(&s.vmm, VMM_DISCARD, 0, 512), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_ZEROES, 0, 512), 0);
	assert_ok(hgm_region_discard(mine, 4 * MIB, 2 * MIB));
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 512, PAGES), 0);
	assert_int_equal(vmm_do(&other.vmm, VMM_CHECK, 0, PAGES), 0);
	assert_pages(&vmm_contents, 2 * PAGES, 1024, here);
	hgm_peer_destroy(other.peer);
	assert_pages(&vmm_contents, 2 * PAGES, 1024, here);
	hgm_region_destroy(mine);
	munmap(here, LENGTH);
	provider_free(other.provider);
	vmm_end(&other.vmm);
	scene_end(&s);
}

/* A process whose region is complete needs no handler any more. */
static void goes_on_alone(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	hgm_peer_destroy(s.peer);
	assert_int_equal(vmm_do(&s.vmm, VMM_DISCARD, 0, 100), 0); /* nobody reads its events */
	assert_int_equal(vmm_do(&s.vmm, VMM_ZEROES, 0, 100), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 100, PAGES), 0);
	scene_end(&s);
}

/* One that is not complete waits for the next handler. It never reads zeroes. */
static void waits_for_the_next(void **state)
{
	struct hgm_region_opts ro;
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_NEVER, HGM_REGION_NO_FILL);
	provider_answer_below(s.provider, 100);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 100), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_WRITE, 7, 12345), 0);
	hgm_peer_destroy(s.peer);
	vmm_tell(&s.vmm, VMM_CHECK, 100, PAGES);
	nap_us(50000);
	provider_answer_below(s.provider, PAGES);
	s.peer = peer_of(s.h, &s.vmm);
	ro = peer_region_opts(&s, 0);
	assert_ok(hgm_region_create(&s.region, s.h, &ro));
	assert_int_equal(vmm_answer(&s.vmm), 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	/* What was there stays as it was. */
	assert_int_equal(vmm_do(&s.vmm, VMM_READ, 7, 0), 12345);
	scene_end(&s);
}

/* A page that the process has written to before anybody served it. */
static void touched_before(void **state)
{
	struct vmm_opts o = { .length = LENGTH, .touched_page = 77 };
	struct scene s;

	(void)state;
	scene_begin_with(&s, &o, PROVIDER_MEMORY, HGM_REGION_NO_COLLAPSE);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_READ, 77, 0), 1);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 77), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 78, PAGES), 0);
	assert_int_equal(stats_of(s.h).poisoned_pages, 0);
	scene_end(&s);
}

/* What the process drops before there is a region is zero, too. */
static void dropped_early(void **state)
{
	struct hgm_region_opts o;
	struct scene s;

	(void)state;
	watch("dropped early", 120);
	vmm_start(&s.vmm, &(struct vmm_opts){ .length = LENGTH });
	scene_engine(&s, PROVIDER_MEMORY);
	s.peer = peer_of(s.h, &s.vmm);
	vmm_tell(&s.vmm, VMM_DISCARD, 600, 700);
	nap_us(20000); /* likely to drop by then */
	o = peer_region_opts(&s, 0);
	assert_ok(hgm_region_create(&s.region, s.h, &o));
	assert_int_equal(vmm_answer(&s.vmm), 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_ZEROES, 600, 700), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 600), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 700, PAGES), 0);
	scene_end(&s);
}

/* Memory that the process unmaps without an event is no trouble for the rest. */
static void unmapped(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_NEVER, 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_UNMAP, 512, 1024), 0);
	provider_answer_below(s.provider, PAGES);
	provider_give(s.provider);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 512), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 1024, PAGES), 0);
	scene_end(&s);
}

/* What a handler cannot do is said, and changes nothing. */
static void refused(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_error(hgm_region_discard(s.region, 0, PAGE), -EOPNOTSUPP);
	assert_ok(hgm_region_before_write(s.region, 0, PAGE));
	assert_error(hgm_region_retry(s.region), -EOPNOTSUPP);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, PAGES), 0);
	scene_end(&s);
}

/* A region that cannot be created leaves the memory registered, so that no zeroes are read. */
static void a_region_too_many(void **state)
{
	struct vmm_opts vo = { .length = (HGM_REGIONS_MAX + 8) * PAGE };
	struct hgm_region *each[HGM_REGIONS_MAX], *late;
	struct hgm_region_opts o;
	uint64_t last = HGM_REGIONS_MAX;
	struct scene s;

	(void)state;
	while (contents_hole(&vmm_contents, last))
		last++;
	watch("a region too many", 120);
	vmm_start(&s.vmm, &vo);
	scene_engine(&s, PROVIDER_NOW);
	s.peer = peer_of(s.h, &s.vmm);
	o = peer_region_opts(&s, HGM_REGION_NO_COLLAPSE);
	o.length = PAGE;
	for (uint64_t i = 0; i < HGM_REGIONS_MAX; i++) {
		o.addr = s.vmm.addr + i * PAGE;
		o.source_offset = i * PAGE;
		assert_ok(hgm_region_create(&each[i], s.h, &o));
	}
	o.addr = s.vmm.addr + last * PAGE;
	o.source_offset = last * PAGE;
	assert_error(hgm_region_create(&late, s.h, &o), -ENOSPC);
	vmm_tell(&s.vmm, VMM_CHECK, last, last + 1);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	hgm_region_destroy(each[0]);
	assert_ok(hgm_region_create(&late, s.h, &o));
	assert_int_equal(vmm_answer(&s.vmm), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, HGM_REGIONS_MAX), 0);
	scene_end(&s);
}

/* Raises or lowers effective capabilities of this thread. */
static void set_capabilities(uint32_t bits, bool on)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	assert_int_equal(syscall(SYS_capget, &head, data), 0);
	data[0].effective = on ? data[0].effective | bits : data[0].effective & ~bits;
	assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

/* Without rights over the process its memory is served all the same, in small pages. */
static void without_rights(void **state)
{
	const uint32_t bits = 1u << CAP_SYS_NICE | 1u << CAP_SYS_PTRACE;
	struct hgm_snapshot_opts to_null = { .size = sizeof(to_null) };
	struct hgm_snapshot *snapshot;
	struct hgm_region_opts o;
	struct scene s;

	(void)state;
	if (geteuid())
		test_skip("only root has capabilities to do without");
	watch("without rights", 120);
	vmm_start(&s.vmm, &(struct vmm_opts){ .length = LENGTH });
	scene_engine(&s, PROVIDER_MEMORY);
	set_capabilities(bits, false);
	s.peer = peer_of(s.h, &s.vmm);
	o = peer_region_opts(&s, 0);
	o.require = HGM_REQUIRE_HUGE;
	assert_error(hgm_region_create(&s.region, s.h, &o), -EOPNOTSUPP);
	o.require = 0;
	assert_ok(hgm_region_create(&s.region, s.h, &o));
	set_capabilities(bits, true);
	if (peer_info(s.peer).collapse_error != -EACCES) /* 6.1 looks at the other right first */
		assert_int_equal(peer_info(s.peer).collapse_error, -EPERM);
	assert_non_null(strstr(info_of(s.region).sentence, "CAP_SYS_NICE"));
	assert_int_equal(vmm_do(&s.vmm, VMM_TOUCH, 4, 0), 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(info_of(s.region).huge_bytes_max, 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_HUGE, 0, 0), 0);
	to_null.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_error(hgm_snapshot_create(&snapshot, s.h, &to_null), -EACCES);
	close(to_null.fd);
	scene_end(&s);
}

static void bad_peers(void **state)
{
	struct hgm_peer_opts o = { .size = sizeof(o) };
	int plain = memfd_create("plain", MFD_CLOEXEC);
	struct hgm_uffd *ours;
	struct vmm untold;
	struct hgm_peer *p;
	struct scene s;
	struct hgm *idle;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	o.uffd = s.vmm.uffd;
	o.pidfd = s.vmm.pidfd;
	assert_error(hgm_peer_create(NULL, s.h, &o), -EINVAL);
	assert_error(hgm_peer_create(&p, NULL, &o), -EINVAL);
	assert_error(hgm_peer_create(&p, s.h, NULL), -EINVAL);
	idle = engine(1);
	assert_error(hgm_peer_create(&p, idle, &o), -EINVAL);
	hgm_destroy(idle);
	o.reserved = 1;
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	o.reserved = 0;
	o.size = sizeof(o) + 8;
	{
		struct {
			struct hgm_peer_opts o;
			uint64_t unknown;
		} longer = { .o = o, .unknown = 1 };

		assert_error(hgm_peer_create(&p, s.h, &longer.o), -E2BIG);
	}
	o.size = sizeof(o);
	o.uffd = plain;
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	o.uffd = 1234567;
	assert_error(hgm_peer_create(&p, s.h, &o), -EBADF);
	o.uffd = s.vmm.uffd;
	o.pidfd = plain;
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	o.pidfd = 1234567;
	assert_error(hgm_peer_create(&p, s.h, &o), -EBADF);
	o.pid = -1;
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	o.pid = getpid();
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	o.pid = 0x3fffffff;
	assert_error(hgm_peer_create(&p, s.h, &o), -ESRCH);
	/* A userfaultfd of our own. */
	assert_ok(hgm_uffd_open(&ours, NULL));
	o.pid = s.vmm.pid;
	o.uffd = hgm_uffd_fd(ours);
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	hgm_uffd_close(ours);
	vmm_start(&untold, &(struct vmm_opts){ .length = LENGTH, .untold = true });
	o.pid = untold.pid;
	o.uffd = untold.uffd;
	assert_error(hgm_peer_create(&p, s.h, &o), -EINVAL);
	vmm_end(&untold);
	o.pid = 0;
	assert_error(hgm_peer_get_info(NULL, &(struct hgm_peer_info){ .size = 8 }), -EINVAL);
	assert_error(hgm_peer_get_info(s.peer, NULL), -EINVAL);
	hgm_peer_destroy(NULL);
	close(plain);
	scene_end(&s);
}

static void bad_regions(void **state)
{
	struct hgm_region_opts o;
	struct hgm_region *r;
	struct scene s, shared;
	struct hgm *other;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	o = peer_region_opts(&s, 0);
	assert_error(hgm_region_create(&r, s.h, &o), -EBUSY); /* the same memory again */
	o.peer = NULL;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o = peer_region_opts(&s, 0);
	o.backing = HGM_BACKING_MAPPING;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o = peer_region_opts(&s, 0);
	other = engine(1);
	assert_error(hgm_region_create(&r, other, &o), -EINVAL);
	hgm_destroy(other);
	o.addr = NULL;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o.addr = s.vmm.addr + LENGTH + 1;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o.addr = s.vmm.addr + LENGTH; /* more than the process has mapped there */
	o.length = UINT64_C(1) << 46;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o = peer_region_opts(&s, 0);
	o.addr = s.vmm.addr + LENGTH;
	o.flags = HGM_REGION_LAZY;
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	o.flags = 0;
	o.require = HGM_REQUIRE_SHARED;
	assert_error(hgm_region_create(&r, s.h, &o), -EOPNOTSUPP);

	shared = s;
	vmm_start(&shared.vmm, &(struct vmm_opts){ .length = LENGTH, .memory = VMM_SHARED });
	shared.peer = peer_of(s.h, &shared.vmm);
	o = peer_region_opts(&shared, 0);
	assert_error(hgm_region_create(&r, s.h, &o), -EINVAL);
	hgm_peer_destroy(shared.peer);
	vmm_end(&shared.vmm);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, PAGES), 0);
	scene_end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(every_byte),	      cmocka_unit_test(on_demand),
	cmocka_unit_test(blocks_become_huge), cmocka_unit_test(unaligned),
	cmocka_unit_test(discards),	      cmocka_unit_test(churning),
	cmocka_unit_test(one_exits),	      cmocka_unit_test(one_runs_another_program),
	cmocka_unit_test(same_addresses),     cmocka_unit_test(goes_on_alone),
	cmocka_unit_test(waits_for_the_next), cmocka_unit_test(touched_before),
	cmocka_unit_test(unmapped),	      cmocka_unit_test(refused),
	cmocka_unit_test(without_rights),     cmocka_unit_test(dropped_early),
	cmocka_unit_test(a_region_too_many),  cmocka_unit_test(bad_peers),
	cmocka_unit_test(bad_regions),
};

TEST_MAIN(tests)
