/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A confined process: limits, a root without /proc, a file system that is too small. A request that
 * cannot be granted is refused with a reason and leaves nothing behind. What exists goes on.
 */
#include "harness.h"
#include "kernel/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <urcu/urcu-bp.h>

#define WAIT_MS SMALLER(20000, 100000)
#define LENGTH	(8 * MIB)

static const struct contents contents = { .seed = 8, .holes = true };

static _Atomic unsigned int signals;

static void count_signal(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

/* A file that is too large causes an error, and does not end the process. */
static void file_size(void **state)
{
	static const uint32_t files[] = { HGM_BACKING_SHMEM, HGM_BACKING_SHMEM_LAZY,
					  HGM_BACKING_HUGETLB };
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_region_opts opts = { .size = sizeof(opts), .length = LENGTH };
	struct hgm *h = engine(1);
	struct rlimit before, limit;
	struct hgm_region *r;

	(void)state;
	watch("RLIMIT_FSIZE", 60);
	opts.source = provider_source(provider);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = LENGTH / 2;
	signal(SIGXFSZ, count_signal);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (unsigned int i = 0; i < 3; i++) {
		opts.backing = files[i];
		assert_error(hgm_region_create(&r, h, &opts), -EFBIG);
		assert_non_null(strstr(hgm_errmsg(), "RLIMIT_FSIZE"));
	}
	opts.backing = HGM_BACKING_AUTO;
	assert_ok(hgm_region_create(&r, h, &opts));
	assert_int_equal(info_of(r).backing, HGM_BACKING_ANON);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(signals, 0);
	signal(SIGXFSZ, SIG_DFL);
	assert_ok(hgm_start(h));
	assert_ok(hgm_wait(h, WAIT_MS));
	assert_pages(&contents, 0, LENGTH / PAGE, hgm_region_addr(r));
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static int64_t take(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)offset;
	return (int64_t)length;
}

/* In a child: the function returns the line that failed, else 0. */
#define NEED(condition)                  \
	do {                             \
		if (!(condition))        \
			return __LINE__; \
	} while (0)

static int live_in_jail(enum backing backing, const char *root, bool before_the_region)
{
	const struct hgm_snapshot_opts snapshot_opts = { .size = sizeof(snapshot_opts),
							 .write = take };
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm *h = engine(1);
	struct hgm_snapshot *s;
	struct hgm_dirty *d;
	struct ram ram;

	NEED(!before_the_region || (!chroot(root) && !chdir("/")));
	NEED(!ram_try(&ram, h, backing, LENGTH, provider_source(provider), 0, 0));
	NEED(!hgm_start(h));
	NEED(before_the_region || (!chroot(root) && !chdir("/")));
	NEED(access("/proc/self", F_OK));
	NEED(!hgm_wait(h, WAIT_MS));
	NEED(!hgm_snapshot_create(&s, h, &snapshot_opts));
	NEED(!hgm_snapshot_begin(s));
	NEED(!hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	NEED(!hgm_dirty_start(&d, ram.region, NULL));
	hgm_dirty_stop(d);
	NEED(!hgm_region_watch(ram.region, NULL));
	NEED(!hgm_region_unwatch(ram.region));
	assert_pages(&contents, 0, LENGTH / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	return 0;
}

/* hgm_create() has opened everything that needs /proc. */
static void jail(void **state)
{
	char root[] = "/tmp/hgm-jail-XXXXXX";

	(void)state;
	if (geteuid())
		test_skip("only root may chroot");
	watch("a jail", 120);
	assert_non_null(mkdtemp(root));
	for (unsigned int i = 0; i < 4; i++) {
		pid_t child = fork();
		int status;

		assert_true(child >= 0);
		if (!child)
			_exit(live_in_jail(i % 2 ? BACKING_ANON : BACKING_SHMEM, root, i / 2));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (status)
			fail_msg("%s in a jail: status %#x, line %d", i % 2 ? "anon" : "shmem",
				 status, WEXITSTATUS(status));
	}
	rmdir(root);
	calm();
}

/* From now on membarrier(2) is denied to all threads. */
static int deny_membarrier(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			    &program);
}

static int live_without_membarrier(unsigned int when)
{
	const struct hgm_snapshot_opts snapshot_opts = { .size = sizeof(snapshot_opts),
							 .write = take };
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_snapshot *s;
	struct hgm *h;
	struct ram ram;

	NEED(when != 0 || !deny_membarrier());
	h = engine(1);
	NEED(when != 1 || !deny_membarrier());
	NEED(!ram_try(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0, 0));
	NEED(!hgm_start(h));
	NEED(!hgm_wait(h, WAIT_MS));
	urcu_bp_barrier(); /* wait for all callbacks that were queued before */
	NEED(when != 2 || !deny_membarrier());
	NEED(!hgm_snapshot_create(&s, h, &snapshot_opts));
	NEED(!hgm_snapshot_begin(s));
	NEED(!hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	return 0;
}

/* The filter is loaded after the library, so the library does not know of it. */
static void without_membarrier(void **state)
{
	(void)state;
	watch("no membarrier", 60);
	for (unsigned int when = 0; when < 3; when++) {
		pid_t child = fork();
		int status;

		assert_true(child >= 0);
		if (!child)
			_exit(live_without_membarrier(when));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (status)
			fail_msg("membarrier denied, %u: status %#x, line %d", when, status,
				 WEXITSTATUS(status));
	}
	calm();
}

/* Runs in a child with its own mounts. */
static int live_on_too_little(const char *folder)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	struct hgm_region_opts opts = { .size = sizeof(opts),
					.length = LENGTH,
					.backing = HGM_BACKING_FD };
	struct hgm *h = engine(1);
	struct hgm_region *r;
	struct stat before, after;
	char path[96], byte;

	NEED(!unshare(CLONE_NEWNS));
	NEED(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	NEED(!mount("tmpfs", folder, "tmpfs", 0, "size=4m"));
	snprintf(path, sizeof(path), "%s/ram", folder);
	opts.source = provider_source(provider);
	opts.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	NEED(opts.fd >= 0);
	NEED(!ftruncate(opts.fd, LENGTH));
	NEED(pwrite(opts.fd, "x", 1, 5 * PAGE) == 1);
	NEED(!fstat(opts.fd, &before));
	NEED(hgm_region_create(&r, h, &opts) == -ENOMEM);
	NEED(!fstat(opts.fd, &after));
	NEED(after.st_blocks == before.st_blocks);
	NEED(pread(opts.fd, &byte, 1, 5 * PAGE) == 1 && byte == 'x');
	NEED(!lseek(opts.fd, 0, SEEK_CUR));
	hgm_destroy(h);
	return 0;
}

static void small_file_system(void **state)
{
	char folder[] = "/tmp/hgm-small-XXXXXX";
	pid_t child;
	int status;

	(void)state;
	if (geteuid())
		test_skip("only root may mount");
	watch("a small tmpfs", 60);
	assert_non_null(mkdtemp(folder));
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(live_on_too_little(folder));
	assert_int_equal(waitpid(child, &status, 0), child);
	rmdir(folder);
	if (status)
		fail_msg("a small tmpfs: status %#x, line %d", status, WEXITSTATUS(status));
	calm();
}

/* The alias is not in core dumps. One of the two mappings of the memfd is, the other is not. */
static void core_dumps(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, LENGTH);
	unsigned int ours = 0, left_out = 0;
	bool is_ours = false;
	struct hgm *h = engine(1);
	char line[512];
	struct ram ram;
	FILE *smaps;

	(void)state;
	watch("core dumps", 60);
	ram_make(&ram, h, BACKING_SHMEM, LENGTH, provider_source(provider), 0);
	smaps = fopen("/proc/self/smaps", "r");
	assert_non_null(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (strstr(line, "-s ") || strstr(line, "rw-p"))
			is_ours = strstr(line, "memfd:hgm");
		if (!is_ours || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		ours++;
		left_out += !!strstr(line, " dd");
	}
	fclose(smaps);
	assert_true(ours > 1);
	assert_int_equal(left_out, 1);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
	calm();
}

static const struct hgm_sys *kernel;
static _Atomic int reopened_with;

static int note_open(const char *path, int flags)
{
	if (!strncmp(path, "/proc/self/fd/", 14))
		atomic_store(&reopened_with, flags);
	return kernel->open(path, flags);
}

/* A caller that opens a file with O_DIRECT wants it to stay out of the page cache. */
static void direct_io(void **state)
{
	static struct hgm_sys sys;
	char path[] = "hgm-direct-XXXXXX";
	struct hgm_source *src;
	int fd, direct;

	(void)state;
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, LENGTH), 0);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (direct < 0) {
		close(fd);
		test_skip("this kernel has no O_DIRECT for this file system (tmpfs: 6.6 or later "
			  "has)");
	}
	kernel = hgm_sys;
	sys = *kernel;
	sys.open = note_open;
	hgm_sys = &sys;
	assert_ok(hgm_source_fd(&src, direct));
	assert_true(reopened_with & O_DIRECT);
	hgm_source_destroy(src);
	assert_ok(hgm_source_fd(&src, fd));
	assert_false(reopened_with & O_DIRECT);
	hgm_source_destroy(src);
	hgm_sys = kernel;
	close(direct);
	close(fd);
}

/* One file, or one mapping, can belong to one region only. */
static void one_file_twice(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * LENGTH);
	struct hgm_region_opts opts = { .size = sizeof(opts),
					.length = LENGTH,
					.backing = HGM_BACKING_FD,
					.source = provider_source(provider) };
	int fd = memfd_create("ram", MFD_CLOEXEC), copy;
	struct hgm *h = engine(1);
	struct hgm_region *a, *b;

	(void)state;
	watch("a file twice", 60);
	assert_int_equal(ftruncate(fd, 2 * LENGTH), 0);
	copy = dup(fd);
	opts.fd = fd;
	assert_ok(hgm_region_create(&a, h, &opts));
	opts.fd = copy;
	assert_error(hgm_region_create(&b, h, &opts), -EBUSY);
	opts.fd_offset = LENGTH - 2 * MIB;
	assert_error(hgm_region_create(&b, h, &opts), -EBUSY);
	opts.flags = HGM_REGION_LAZY;
	assert_error(hgm_region_create(&b, h, &opts), -EBUSY);
	opts.fd_offset = LENGTH;
	assert_ok(hgm_region_create(&b, h, &opts));
	hgm_region_destroy(a);
	opts.fd_offset = 0;
	assert_ok(hgm_region_create(&a, h, &opts));
	hgm_destroy(h);
	close(fd);
	close(copy);
	provider_free(provider);
	calm();
}

struct maker {
	struct hgm *h;
	struct hgm_region_opts opts;
	pthread_barrier_t *barrier;
	int rc;
};

static void *make_one(void *arg)
{
	struct maker *m = arg;
	struct hgm_region *r;

	pthread_barrier_wait(m->barrier);
	m->rc = hgm_region_create(&r, m->h, &m->opts);
	return NULL;
}

static void one_mapping_at_the_same_time(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	char *raw = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_barrier_t barrier;

	(void)state;
	watch("two threads, one mapping", 60);
	assert_ptr_not_equal(raw, MAP_FAILED);
	pthread_barrier_init(&barrier, NULL, 2);
	for (unsigned int i = 0; i < 60; i++) {
		struct maker m[2];
		pthread_t thread[2];

		m[0].h = engine(1);
		m[0].barrier = &barrier;
		m[0].opts = (struct hgm_region_opts){
			.size = sizeof(m[0].opts),
			.length = 2 * MIB,
			.source = provider_source(provider),
			.backing = HGM_BACKING_MAPPING,
			.fd = -1,
			.addr = (void *)(((uintptr_t)raw + 2 * MIB - 1) & ~(2 * MIB - 1)),
			.flags = HGM_REGION_NO_FILL,
		};
		m[1] = m[0];
		for (unsigned int k = 0; k < 2; k++)
			assert_int_equal(pthread_create(&thread[k], NULL, make_one, &m[k]), 0);
		for (unsigned int k = 0; k < 2; k++)
			pthread_join(thread[k], NULL);
		if (m[0].rc && m[1].rc)
			fail_msg("neither has it: %d and %d", m[0].rc, m[1].rc);
		assert_int_equal(m[0].rc + m[1].rc, -EBUSY);
		hgm_destroy(m[0].h);
		mprotect(m[0].opts.addr, 2 * MIB, PROT_READ | PROT_WRITE);
	}
	pthread_barrier_destroy(&barrier);
	munmap(raw, 4 * MIB);
	provider_free(provider);
	calm();
}

/* Where the thread that has a mapping halts until it is let go. */
enum halt {
	HALT_REGISTER,
	HALT_DROP,
	HALT_UNREGISTER, /* at the region's end */
	HALTS,
};

static struct {
	enum halt where;
	_Atomic bool is_halted;
	_Atomic bool let_go;
} halt;

static __thread bool may_halt;

static bool is_true(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

static void halt_at(enum halt where)
{
	if (!may_halt || halt.where != where)
		return;
	may_halt = false;
	atomic_store(&halt.is_halted, true);
	eventually(is_true, &halt.let_go, WAIT_MS);
}

static int halting_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	halt_at(HALT_REGISTER);
	return kernel->uffd_register(fd, addr, len, modes, ioctls);
}

static int halting_unregister(int fd, void *addr, uint64_t len)
{
	halt_at(HALT_UNREGISTER);
	return kernel->uffd_unregister(fd, addr, len);
}

static int halting_madvise(void *addr, uint64_t len, int advice)
{
	if (advice == HGM_MADV_DONTNEED_LOCKED)
		halt_at(HALT_DROP);
	return kernel->madvise(addr, len, advice);
}

struct user {
	struct maker maker;
	struct hgm_region *region;
	_Atomic bool done;
};

static void *have_it(void *arg)
{
	struct user *u = arg;

	may_halt = true;
	if (u->region)
		hgm_region_destroy(u->region);
	else
		u->maker.rc = hgm_region_create(&u->region, u->maker.h, &u->maker.opts);
	atomic_store(&u->done, true);
	return NULL;
}

/* While a mapping is being given to a region, or still belongs to one, no other region gets it. */
static void one_mapping_while_it_is_had(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	static struct hgm_sys sys;
	char *raw;

	(void)state;
	kernel = hgm_sys;
	sys = *kernel;
	sys.uffd_register = halting_register;
	sys.uffd_unregister = halting_unregister;
	sys.madvise = halting_madvise;
	hgm_sys = &sys;
	raw = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(raw, MAP_FAILED);
	for (unsigned int i = 0; i < HALTS; i++) {
		struct user first = { .region = NULL };
		struct hgm_region *second = NULL;
		pthread_t thread;

		watch("one mapping while somebody has it", 60);
		first.maker.h = engine(1);
		first.maker.opts = (struct hgm_region_opts){
			.size = sizeof(first.maker.opts),
			.length = 2 * MIB,
			.source = provider_source(provider),
			.backing = HGM_BACKING_MAPPING,
			.fd = -1,
			.addr = (void *)(((uintptr_t)raw + 2 * MIB - 1) & ~(2 * MIB - 1)),
			.flags = HGM_REGION_NO_FILL,
		};
		halt.where = (enum halt)i;
		halt.is_halted = halt.let_go = false;
		if (i == HALT_UNREGISTER)
			assert_ok(
				hgm_region_create(&first.region, first.maker.h, &first.maker.opts));
		assert_int_equal(pthread_create(&thread, NULL, have_it, &first), 0);
		assert_true(eventually(is_true, &halt.is_halted, WAIT_MS));
		assert_error(hgm_region_create(&second, first.maker.h, &first.maker.opts), -EBUSY);
		assert_false(first.done);
		atomic_store(&halt.let_go, true);
		pthread_join(thread, NULL);
		assert_int_equal(first.maker.rc, 0);
		hgm_destroy(first.maker.h);
		mprotect(first.maker.opts.addr, 2 * MIB, PROT_READ | PROT_WRITE);
		calm();
	}
	munmap(raw, 4 * MIB);
	hgm_sys = kernel;
	provider_free(provider);
}

static const struct CMUnitTest tests[] = {
	/* Children first: a child has none of the library's threads, so none may exist yet. */
	cmocka_unit_test(jail),
	cmocka_unit_test(without_membarrier),
	cmocka_unit_test(small_file_system),
	cmocka_unit_test(file_size),
	cmocka_unit_test(core_dumps),
	cmocka_unit_test(direct_io),
	cmocka_unit_test(one_file_twice),
	cmocka_unit_test(one_mapping_at_the_same_time),
	cmocka_unit_test(one_mapping_while_it_is_had),
};

TEST_MAIN(tests)
