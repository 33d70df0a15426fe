/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A user's program, compiled as C and as C++ against the installed library: restores a region from
 * a function of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hgm/hgm.h>

#if HGM_VERSION_NUMBER < HGM_VERSION_AT(0, 1, 0) || !defined(HGM_HAVE_REGION) || \
	!defined(HGM_HAVE_SOURCE)
#error "an #if of a user does not find what is there"
#endif
#if HGM_VERSION_NUMBER >= HGM_VERSION_AT(99, 0, 0) || defined(HGM_HAVE_NEVER)
#error "an #if of a user finds what is not there"
#endif

#define PAGE   4096
#define LENGTH (1024 * PAGE)

static void check(int rc, const char *what)
{
	if (!rc)
		return;
	printf("%s: %d: %s\n", what, rc, hgm_errmsg());
	exit(1);
}

static unsigned char byte_of(uint64_t offset)
{
	return (unsigned char)(offset / PAGE * 31 + offset % PAGE);
}

static int64_t answer(void *user, const struct hgm_io *io)
{
	unsigned char *to = (unsigned char *)io->buf;

	for (size_t i = 0; i < io->length; i++)
		to[i] = byte_of(io->offset + i);
	++*(int *)user; /* one fault thread, one worker: somewhat more or less, but not 0 */
	return (int64_t)io->length;
}

static int restore(struct hgm *h)
{
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm_region_opts opts;
	struct hgm_region_info info;
	const unsigned char *memory;
	int asked = 0;

	check(hgm_source_fn(&src, answer, &asked, NULL), "hgm_source_fn");
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.length = LENGTH;
	opts.source = src;
	check(hgm_region_create(&r, h, &opts), "hgm_region_create");
	check(hgm_start(h), "hgm_start");
	memory = (const unsigned char *)hgm_region_addr(r);
	if (memory[LENGTH - 1] != byte_of(LENGTH - 1)) {
		printf("the last byte was served wrong\n");
		return 1;
	}
	check(hgm_wait(h, 60000), "hgm_wait");
	for (uint64_t i = 0; i < LENGTH; i++)
		if (memory[i] != byte_of(i)) {
			printf("byte %llu is wrong\n", (unsigned long long)i);
			return 1;
		}
	memset(&info, 0, sizeof(info));
	info.size = sizeof(info);
	check(hgm_region_get_info(r, &info), "hgm_region_get_info");
	printf("%s\n", info.sentence);
	hgm_region_destroy(r);
	hgm_source_destroy(src);
	return info.present_bytes == LENGTH && asked ? 0 : 1;
}

int main(void)
{
	struct hgm_opts opts;
	struct hgm *h;
	int rc;

	if (hgm_version() != HGM_VERSION_NUMBER) {
		printf("headers and library differ in version\n");
		return 1;
	}
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.flags = HGM_ALLOW_USER_MODE_ONLY;
	opts.fault_threads = opts.workers = 1;
	check(hgm_create(&h, &opts), "hgm_create");
	rc = restore(h);
	hgm_destroy(h);
	return rc;
}
