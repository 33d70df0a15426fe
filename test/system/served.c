/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "served.h"

#include <errno.h>

struct hgm_peer *peer_of(struct hgm *h, const struct vmm *v)
{
	struct hgm_peer_opts o = { .size = sizeof(o), .uffd = v->uffd, .pidfd = v->pidfd };
	struct hgm_peer *p;

	assert_ok(hgm_peer_create(&p, h, &o));
	return p;
}

struct hgm_region_opts peer_region_opts(const struct scene *s, uint32_t flags)
{
	return (struct hgm_region_opts){
		.size = sizeof(struct hgm_region_opts),
		.length = s->vmm.length,
		.source = provider_source(s->provider),
		.backing = HGM_BACKING_PEER,
		.peer = s->peer,
		.addr = s->vmm.addr,
		.flags = flags,
	};
}

void scene_engine(struct scene *s, enum provider_kind kind)
{
	s->provider = provider_make(kind, &vmm_contents, s->vmm.length);
	s->h = engine(1);
	assert_ok(hgm_start(s->h));
}

void scene_serve(struct scene *s, enum provider_kind kind, uint32_t flags)
{
	struct hgm_region_opts ro;

	scene_engine(s, kind);
	s->peer = peer_of(s->h, &s->vmm);
	ro = peer_region_opts(s, flags);
	assert_ok(hgm_region_create(&s->region, s->h, &ro));
}

void scene_begin_with(struct scene *s, const struct vmm_opts *o, enum provider_kind kind,
		      uint32_t flags)
{
	watch("a process that is served", 120);
	vmm_start(&s->vmm, o);
	scene_serve(s, kind, flags);
}

void scene_begin(struct scene *s, enum provider_kind kind, uint32_t flags)
{
	struct vmm_opts o = { .length = LENGTH };

	scene_begin_with(s, &o, kind, flags);
}

void scene_end(struct scene *s)
{
	hgm_destroy(s->h);
	provider_free(s->provider);
	vmm_end(&s->vmm);
	calm();
}

struct hgm_peer_info peer_info(const struct hgm_peer *p)
{
	struct hgm_peer_info info = { .size = sizeof(info) };

	assert_ok(hgm_peer_get_info(p, &info));
	return info;
}

static bool is_huge(void *arg)
{
	const struct scene *s = arg;

	return info_of(s->region).huge_bytes == info_of(s->region).huge_bytes_max;
}

void assert_blocks_huge(struct scene *s, uint64_t want)
{
	struct hgm_peer_info info = peer_info(s->peer);

	if (info.collapse_error == -EINVAL)
		test_skip("this kernel has no process_madvise(MADV_COLLAPSE)");
	assert_int_equal(info.collapse_error, 0);
	assert_int_equal(info_of(s->region).huge_bytes_max, want);
	if (!eventually(is_huge, s, WAIT_MS))
		fail_msg("%llu of %llu KiB huge; %s",
			 (unsigned long long)info_of(s->region).huge_bytes >> 10,
			 (unsigned long long)want >> 10,
			 strerrorname_np(-info_of(s->region).collapse_error));
	assert_int_equal(vmm_do(&s->vmm, VMM_HUGE, 0, 0), want);
}
