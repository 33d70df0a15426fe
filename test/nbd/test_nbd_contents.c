/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory from nbdkit: all bytes are right, whatever the server can and the region is, and what is
 * known to be zero is not read.
 */
#include "server.h"

#include <errno.h>

#define LENGTH (24 * MIB)

static const struct contents with_holes = { .seed = 11, .holes = true };

/* Touchers while fill runs; then nothing is left behind. */
static void restore(const char *const *args, enum backing backing, uint32_t connections)
{
	struct hgm_source_nbd_opts opts = { .size = sizeof(opts), .connections = connections };
	struct plan plan = { .contents = &with_holes, .pages = LENGTH / PAGE };
	struct holdings before;
	struct hgm_source *src;
	struct touchers t;
	struct server s;
	struct hgm *h;
	struct ram ram;

	server_make(&s, &with_holes, LENGTH);
	server_start(&s, args);
	before = take_holdings();
	assert_ok(hgm_source_nbd(&src, s.uri, &opts));
	h = engine(2);
	ram_make(&ram, h, backing, LENGTH, src, 0);
	assert_ok(hgm_start(h));
	plan.addr = ram.addr;
	touchers_start(&t, 8, &plan);
	touchers_join(&t);
	assert_ok(hgm_wait(h, 60000));
	assert_pages(&with_holes, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	assert_true(take_holdings().threads > before.threads);
	hgm_source_destroy(src);
	assert_int_equal(take_holdings().descriptors, before.descriptors);
	server_end(&s);
}

static const char *const file[] = { "-r", "file", "{image}", NULL };

static void all_bytes(void **state)
{
	static const enum backing backings[] = { BACKING_SHMEM, BACKING_ANON, BACKING_SHMEM_LAZY };

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++)
		restore(file, backings[i], 0);
}

static void one_connection(void **state)
{
	static const char *const no_multi_conn[] = { "-r",	"--filter=multi-conn",	   "file",
						     "{image}", "multi-conn-mode=disable", NULL };

	(void)state;
	restore(file, BACKING_SHMEM, 1);
	restore(no_multi_conn, BACKING_SHMEM, 16);
}

static void simple_replies(void **state)
{
	static const char *const args[] = { "-r", "--no-sr", "file", "{image}", NULL };

	(void)state;
	restore(args, BACKING_SHMEM, 0);
}

/* A server that reads no more than 32 KiB at a time, and has something to say about alignment. */
static void small_pieces(void **state)
{
	static const char *const args[] = { "-r",
					    "--filter=blocksize-policy",
					    "file",
					    "{image}",
					    "blocksize-minimum=4096",
					    "blocksize-preferred=32768",
					    "blocksize-maximum=32768",
					    "blocksize-error-policy=error",
					    NULL };

	(void)state;
	restore(args, BACKING_SHMEM, 0);
}

/* The bytes that nbdkit's log filter has seen read. */
static uint64_t bytes_read(const struct server *s)
{
	FILE *log = fopen(s->log, "r");
	unsigned long long count;
	uint64_t sum = 0;
	char line[512];

	assert_non_null(log);
	while (fgets(line, sizeof(line), log)) {
		const char *read = strstr(line, " Read id="), *at = strstr(line, "count=0x");

		if (read && at && !strstr(line, "...Read") && sscanf(at, "count=%llx", &count) == 1)
			sum += count;
	}
	fclose(log);
	return sum;
}

/* A hole of 8 MiB, with contents on both sides. */
static void zeroes_are_not_read(void **state)
{
	static const char *const args[] = { "-r",      "--filter=log",	"file",
					    "{image}", "logfile={log}", NULL };
	const struct contents c = { .seed = 5 };
	struct hgm_source *src;
	struct server s;
	struct hgm *h;
	struct ram ram;

	(void)state;
	server_make(&s, &c, 8 * MIB);
	assert_int_equal(truncate(s.image, 16 * MIB), 0);
	server_start(&s, args);
	assert_ok(hgm_source_nbd(&src, s.uri, NULL));
	h = engine(2);
	ram_make(&ram, h, BACKING_SHMEM, 16 * MIB, src, 0);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, 60000));
	assert_pages(&c, 0, 8 * MIB / PAGE, ram.addr);
	for (uint64_t at = 8 * MIB; at < 16 * MIB; at += sizeof(uint64_t))
		assert_int_equal(*(uint64_t *)(ram.addr + at), 0);
	assert_int_equal(bytes_read(&s), 8 * MIB);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	server_end(&s);
}

/* The whole of an export, and no more. */
static void the_end_of_the_export(void **state)
{
	struct hgm_region_opts opts = { .size = sizeof(opts), .length = 4 * MIB + PAGE };
	static const char *const args[] = { "-r", "pattern", "4194304", NULL };
	struct hgm_region *r;
	struct server s;
	struct hgm *h;

	(void)state;
	server_make(&s, NULL, 0);
	server_start(&s, args);
	assert_ok(hgm_source_nbd(&opts.source, s.uri, NULL));
	h = engine(1);
	assert_error(hgm_region_create(&r, h, &opts), -EINVAL);
	opts.length = 2 * MIB;
	opts.source_offset = 2 * MIB;
	assert_ok(hgm_region_create(&r, h, &opts));
	assert_ok(hgm_start(h));
	/* Each 8 bytes of the pattern hold their offset. */
	for (uint64_t at = 0; at < 2 * MIB; at += sizeof(uint64_t))
		assert_int_equal(__builtin_bswap64(*(uint64_t *)((char *)hgm_region_addr(r) + at)),
				 2 * MIB + at);
	hgm_region_destroy(r);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	server_end(&s);
}

/* With a key that both sides have in a file. */
static void over_tls(void **state)
{
	static const char *const args[] = { "-r",   "--tls=require", "--tls-psk={log}",
					    "file", "{image}",	     NULL };
	const struct contents c = { .seed = 7 };
	struct hgm_source *src;
	char uri[400];
	struct server s;
	struct hgm *h;
	struct ram ram;
	FILE *keys;

	(void)state;
	if (system("nbdkit --dump-config | grep -q tls=yes"))
		test_skip("no TLS in nbdkit here");
	server_make(&s, &c, 4 * MIB);
	keys = fopen(s.log, "w");
	assert_non_null(keys);
	fprintf(keys, "alice:%064x\n", 0xa11ce);
	fclose(keys);
	server_start(&s, args);
	assert_error(hgm_source_nbd(&src, s.uri, NULL), -ENOTSUP);
	snprintf(uri, sizeof(uri), "nbds+unix://alice@/?socket=%s&tls-psk-file=%s", s.socket,
		 s.log);
	assert_ok(hgm_source_nbd(&src, uri, NULL));
	h = engine(1);
	ram_make(&ram, h, BACKING_SHMEM, 4 * MIB, src, 0);
	assert_ok(hgm_start(h));
	assert_pages(&c, 0, 4 * MIB / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	server_end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(all_bytes),
	cmocka_unit_test(one_connection),
	cmocka_unit_test(simple_replies),
	cmocka_unit_test(small_pieces),
	cmocka_unit_test(zeroes_are_not_read),
	cmocka_unit_test(the_end_of_the_export),
	cmocka_unit_test(over_tls),
};

TEST_MAIN_UNLESS(tests, NULL, server_lacking())
