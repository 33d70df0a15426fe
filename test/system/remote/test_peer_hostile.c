/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process may do with its userfaultfd and its memory what it likes, by mistake or not. It hurts
 * itself, and neither the handler nor other processes. What the handler leaves behind is of use to
 * the next one.
 */
#include "served.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

/* The descriptor belongs to both: the process makes its reads block. */
static void clears_nonblock(void **state)
{
	struct hgm_region_opts ro;
	struct scene s, other;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, HGM_REGION_NO_FILL);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 0, 10), 0);
	assert_int_equal(fcntl(s.vmm.uffd, F_SETFL, 0), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_DISCARD, 1, 2), 0);
	nap_us(20000); /* the thread looks for more */
	other = s;
	vmm_start(&other.vmm, &(struct vmm_opts){ .length = LENGTH });
	other.peer = peer_of(s.h, &other.vmm);
	ro = peer_region_opts(&other, 0);
	assert_ok(hgm_region_create(&other.region, s.h, &ro));
	assert_ok(hgm_region_prefetch(s.region, 0, LENGTH));
	assert_ok(hgm_wait(s.h, WAIT_MS));
	assert_int_equal(vmm_do(&other.vmm, VMM_CHECK, 0, PAGES), 0);
	assert_int_equal(vmm_do(&s.vmm, VMM_CHECK, 2, PAGES), 0);
	hgm_peer_destroy(s.peer);
	vmm_end(&other.vmm);
	scene_end(&s);
}

/* It changes its address space all the time: what must wait for that gives up, or gets through. */
static void changes_all_the_time(void **state)
{
	struct hgm_region_opts ro;
	struct scene s, other;
	struct hgm_dirty *d;
	int rc;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	vmm_do(&s.vmm, VMM_FLOOD, 3, 0);
	other = s;
	vmm_start(&other.vmm, &(struct vmm_opts){ .length = LENGTH });
	other.peer = peer_of(s.h, &other.vmm);
	ro = peer_region_opts(&other, 0);
	assert_ok(hgm_region_create(&other.region, s.h, &ro));
	assert_int_equal(vmm_do(&other.vmm, VMM_CHECK, 0, PAGES), 0);
	rc = hgm_dirty_start(&d, s.region, NULL);
	if (rc && rc != -EAGAIN)
		fail_msg("%d: %s", rc, hgm_errmsg());
	hgm_peer_destroy(s.peer);
	if (!rc)
		hgm_dirty_stop(d);
	vmm_end(&other.vmm);
	scene_end(&s);
}

/* Threads whose faults were read, and not served, fault again for the next handler. */
static void who_waits_is_handed_over(void **state)
{
	struct pollfd fd = { .events = POLLIN };
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_NEVER, HGM_REGION_NO_FILL);
	vmm_tell(&s.vmm, VMM_READ, 5, 0);
	while (!provider_kept(s.provider))
		nap_us(1000);
	hgm_peer_destroy(s.peer);
	fd.fd = s.vmm.uffd;
	assert_int_equal(poll(&fd, 1, (int)WAIT_MS), 1);
	scene_end(&s);
}

/* That it runs another program is seen even if all its pages have arrived. */
static void runs_another_program(void **state)
{
	int fd = memfd_create("snapshot", MFD_CLOEXEC);
	struct hgm_snapshot_opts so = { .size = sizeof(so), .fd = fd };
	struct hgm_peer_opts po = { .size = sizeof(po) };
	struct hgm_snapshot *snapshot;
	struct hgm_region_opts ro;
	struct hgm_region *late;
	struct hgm_dirty *d;
	struct scene s;
	int rc;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	vmm_tell(&s.vmm, VMM_EXEC, 0, 0);
	while (!peer_info(s.peer).state)
		nap_us(1000);
	assert_int_equal(peer_info(s.peer).state, -ESRCH);
	ro = peer_region_opts(&s, 0);
	rc = hgm_region_create(&late, s.h, &ro);
	assert_true(rc == -ESRCH || rc == -EBUSY);
	assert_error(hgm_dirty_start(&d, s.region, NULL), -ECANCELED);
	assert_error(hgm_snapshot_create(&snapshot, s.h, &so), -ECANCELED);
	hgm_peer_destroy(s.peer);
	po.uffd = s.vmm.uffd;
	po.pidfd = s.vmm.pidfd;
	assert_error(hgm_peer_create(&s.peer, s.h, &po), -ESRCH);
	close(fd);
	scene_end(&s);
}

/* Its userfaultfd must not bring what cannot be served, nor be one of this process. */
static void other_features(void **state)
{
	static const uint64_t features[] = { HGM_UFFD_FEATURE_EVENT_FORK,
					     HGM_UFFD_FEATURE_EVENT_REMAP,
					     HGM_UFFD_FEATURE_SIGBUS };
	struct hgm_uffd_opts uo = { .size = sizeof(uo), .required = HGM_UFFD_FEATURE_EVENT_UNMAP };
	struct hgm_peer_opts po = { .size = sizeof(po) };
	struct hgm_uffd *ours;
	struct hgm_peer *p;
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_MEMORY, 0);
	assert_ok(hgm_wait(s.h, WAIT_MS));
	for (unsigned int i = 0; i < 3; i++) {
		struct vmm v;

		vmm_start(&v, &(struct vmm_opts){ .length = LENGTH, .features = features[i] });
		po.uffd = v.uffd;
		po.pidfd = v.pidfd;
		assert_error(hgm_peer_create(&p, s.h, &po), -EOPNOTSUPP);
		vmm_end(&v);
	}
	/* Unmapping what it has registered waits until an event is read, which nobody does. */
	assert_ok(hgm_uffd_open(&ours, &uo));
	po.uffd = hgm_uffd_fd(ours);
	po.pidfd = s.vmm.pidfd;
	assert_error(hgm_peer_create(&p, s.h, &po), -EINVAL);
	hgm_uffd_close(ours);
	scene_end(&s);
}

/* Contents that come unasked. */
static void put(void **state)
{
	static uint64_t page[PAGE / 8] __attribute__((aligned(4096)));
	struct scene s;

	(void)state;
	scene_begin(&s, PROVIDER_NEVER, HGM_REGION_NO_FILL);
	page[0] = 4712;
	assert_int_equal(hgm_region_put(s.region, 3 * PAGE, page, PAGE), PAGE);
	assert_int_equal(vmm_do(&s.vmm, VMM_READ, 3, 0), 4712);
	scene_end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(clears_nonblock),	    cmocka_unit_test(changes_all_the_time),
	cmocka_unit_test(who_waits_is_handed_over), cmocka_unit_test(runs_another_program),
	cmocka_unit_test(other_features),	    cmocka_unit_test(put),
};

TEST_MAIN(tests)
