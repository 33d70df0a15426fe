/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What cannot be connected to, and a server that breaks the protocol: an error in words, and never
 * a byte that the server did not send for that place.
 */
#include "fake_server.h"
#include "harness.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <hgm/nbd.h>

#define WAIT_MS 60000

static struct hgm_source *src;

static void arguments(void **state)
{
	struct {
		struct hgm_source_nbd_opts opts;
		char later[16];
	} newer = { .opts = { .size = sizeof(newer) }, .later = "x" };
	struct hgm_source_nbd_opts opts = { .size = sizeof(opts) };

	(void)state;
	assert_error(hgm_source_nbd(NULL, "nbd://localhost", NULL), -EINVAL);
	assert_error(hgm_source_nbd(&src, NULL, NULL), -EINVAL);
	assert_error(hgm_source_nbd(&src, "nbd://localhost", &newer.opts), -E2BIG);
	opts.connections = 17;
	assert_error(hgm_source_nbd(&src, "nbd://localhost", &opts), -EINVAL);
	opts.connections = 0;
	opts.reserved = 1;
	assert_error(hgm_source_nbd(&src, "nbd://localhost", &opts), -EINVAL);
	opts.size = 0;
	assert_error(hgm_source_nbd(&src, "nbd://localhost", &opts), -EINVAL);
	assert_error(hgm_source_nbd(&src, "http://localhost", NULL), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "http"));
	assert_error(hgm_source_nbd(&src, "nbd+unix:///?socket=/no/such/socket", NULL), -ENOENT);
	assert_non_null(strstr(hgm_errmsg(), "/no/such/socket"));
}

/* Of another user, and a file that is no socket. */
static void no_access(void **state)
{
	char dir[] = "/tmp/hgm-nbd-XXXXXX", uri[200];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/socket", dir);
	assert_int_equal(chmod(dir, 0), 0);
	if (!geteuid())
		assert_int_equal(seteuid(65534), 0);
	assert_error(hgm_source_nbd(&src, uri, NULL), -EACCES);
	assert_int_equal(seteuid(getuid()), 0);
	rmdir(dir);
}

/* It listens, and never answers; and then it does not even listen. */
static void nobody_answers(void **state)
{
	struct hgm_source_nbd_opts opts = { .size = sizeof(opts), .timeout_ms = 50 };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/hgm-nbd-XXXXXX", uri[200];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct holdings before;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(name.sun_path, sizeof(name.sun_path), "%s/socket", dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", name.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(fd, 4), 0);
	before = take_holdings();
	assert_error(hgm_source_nbd(&src, uri, &opts), -ETIMEDOUT);
	assert_int_equal(take_holdings().descriptors, before.descriptors);
	close(fd);
	assert_error(hgm_source_nbd(&src, uri, &opts), -ECONNREFUSED);
	unlink(name.sun_path);
	rmdir(dir);
}

static void no_tls_and_too_small(void **state)
{
	struct fake_server f;
	char uri[200];

	(void)state;
	fake_start(&f, 512, FAKE_GOOD);
	snprintf(uri, sizeof(uri), "nbds+unix:///?socket=%s", f.socket);
	assert_error(hgm_source_nbd(&src, uri, NULL), -ENOTSUP);
	assert_non_null(strstr(hgm_errmsg(), "TLS"));
	assert_error(hgm_source_nbd(&src, f.uri, NULL), -EINVAL);
	assert_non_null(strstr(hgm_errmsg(), "512 bytes"));
	fake_end(&f);
}

static bool misbehaved(void *arg)
{
	struct fake_server *f = arg;

	return atomic_load(&f->misdeeds) > 2;
}

/* While a server of this manner is asked for a page, and after it has begun to behave. */
static void endure(enum fake_manner manner, enum backing backing, uint32_t flags)
{
	const struct hgm_source_nbd_opts opts = { .size = sizeof(opts), .timeout_ms = 1000 };
	const uint64_t length = 4 * MIB;
	struct fake_server f;
	struct waiter w;
	struct hgm *h;
	struct ram ram;

	fake_start(&f, length, manner);
	assert_ok(hgm_source_nbd(&src, f.uri, &opts));
	h = engine(1);
	ram_make(&ram, h, backing, length, src, flags);
	assert_ok(hgm_start(h));
	waiter_start(&w, ram.addr + MIB + 17);
	assert_true(eventually(misbehaved, &f, WAIT_MS));
	assert_int_equal(atomic_load(&w.signal), -1);
	atomic_store(&f.manner, FAKE_GOOD);
	waiter_join(&w);
	assert_int_equal(w.signal, 0);
	assert_int_equal(w.value, 0x5a);
	for (uint64_t i = 0; i < length; i++)
		if (ram.addr[i] != 0x5a)
			fail_msg("manner %d: byte %llu is %#x", (int)manner, (unsigned long long)i,
				 (unsigned char)ram.addr[i]);
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	fake_end(&f);
}

static void breaks_the_protocol(void **state)
{
	(void)state;
	for (enum fake_manner manner = FAKE_SHORT; manner <= FAKE_GARBAGE; manner++)
		endure(manner, BACKING_SHMEM, 0);
}

/* Where a request is of many pieces: huge pages of the pool are asked for as a whole. */
static void fails_in_the_middle(void **state)
{
	const char *lacking = backing_lacking(BACKING_HUGETLB_2M, 4 * MIB);

	(void)state;
	if (lacking)
		test_skip("%s", lacking);
	for (enum fake_manner manner = FAKE_SHORT; manner <= FAKE_GARBAGE; manner++)
		endure(manner, BACKING_HUGETLB_2M, HGM_REGION_NO_FILL);
}

static char last_error_line[512];
static _Atomic bool told;

static void note_error(void *user, enum hgm_log_level level, const char *text)
{
	(void)user;
	if (level != HGM_LOG_ERROR || atomic_load(&told))
		return;
	snprintf(last_error_line, sizeof(last_error_line), "%s", text);
	atomic_store(&told, true);
}

static bool is_stale(void *arg)
{
	return atomic_load(&told) && progress_of(arg).last_error == -ESTALE;
}

/* Its size is the same, and it says another name of the export. Then it is the old one again. */
static void comes_back_under_another_name(void **state)
{
	const struct hgm_source_nbd_opts opts = { .size = sizeof(opts), .log = note_error };
	const uint64_t length = 4 * MIB;
	struct fake_server f;
	struct waiter w;
	struct hgm *h;
	struct ram ram;

	(void)state;
	fake_start(&f, length, FAKE_CUT);
	assert_ok(hgm_source_nbd(&src, f.uri, &opts));
	atomic_store(&f.name, "two");
	h = engine_with((struct hgm_opts){ .size = sizeof(struct hgm_opts), .retries = 2 });
	ram_make(&ram, h, BACKING_SHMEM, length, src, HGM_REGION_NO_FILL);
	assert_ok(hgm_start(h));
	waiter_start(&w, ram.addr);
	assert_true(eventually(is_stale, h, WAIT_MS));
	assert_non_null(strstr(last_error_line, "is 'two', and was 'one' before"));
	atomic_store(&f.manner, FAKE_GOOD);
	atomic_store(&f.name, "one");
	waiter_join(&w); /* with SIGBUS, where the kernel can poison */
	if (!w.signal)
		assert_int_equal(w.value, 0x5a);
	if (w.signal) {
		/* Given up for as long as the server is another; then it can be had again. */
		uint8_t value;

		do {
			assert_true(hgm_region_retry(ram.region) >= 0);
		} while (touch(ram.addr, &value));
		assert_int_equal(value, 0x5a);
	}
	ram_end(&ram);
	hgm_destroy(h);
	hgm_source_destroy(src);
	fake_end(&f);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(arguments),
	cmocka_unit_test(no_access),
	cmocka_unit_test(nobody_answers),
	cmocka_unit_test(no_tls_and_too_small),
	cmocka_unit_test(breaks_the_protocol),
	cmocka_unit_test(fails_in_the_middle),
	cmocka_unit_test(comes_back_under_another_name),
};

TEST_MAIN(tests)
