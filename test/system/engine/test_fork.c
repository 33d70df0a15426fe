/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process with a running engine forks, as hgm/engine.h allows. The parent is still served. The
 * child has neither the memory nor, once it executes a program, the descriptors.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKS 20

static const struct contents contents = { .seed = 12 };

static int make(void **state)
{
	(void)state;
	watch("fork", 60);
	return 0;
}

static int end(void **state)
{
	(void)state;
	calm();
	return 0;
}

static int status_of(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Reads a byte like a program that handles no signals. A signal ends it. */
static void read_and_exit(const char *addr)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	_exit(*(const volatile char *)addr == 0 ? 0 : 1);
}

static void children_do_not_have_the_memory(void **state)
{
	enum backing backings[] = { BACKING_SHMEM, BACKING_SHMEM_LAZY, BACKING_ANON, BACKING_FD };
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);

	(void)state;
	assert_ok(hgm_start(h));
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct ram ram;
		uint8_t value;
		int status;
		pid_t pid;

		ram_make(&ram, h, backings[i], 2 * MIB, provider_source(provider),
			 HGM_REGION_NO_FILL);
		assert_int_equal(touch(ram.addr, &value), 0);
		pid = fork();
		if (!pid)
			read_and_exit(ram.addr);
		status = status_of(pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		pid = fork();
		if (!pid)
			read_and_exit(ram.addr + MIB); /* it has not arrived */
		status = status_of(pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
		ram_end(&ram);
	}
	hgm_destroy(h);
	provider_free(provider);
}

/* As hgm/engine.h promises, the copy of a caller's mapping has the pages that had arrived. */
static void a_callers_mapping_is_copied(void **state)
{
	struct provider *provider = provider_make(PROVIDER_NOW, &contents, 2 * MIB);
	struct hgm *h = engine(1);
	struct ram ram;
	int status;
	pid_t pid;

	(void)state;
	assert_ok(hgm_start(h));
	ram_make(&ram, h, BACKING_MAPPING_ANON, 2 * MIB, provider_source(provider), 0);
	assert_ok(hgm_wait(h, 30000));
	pid = fork();
	if (!pid) {
		char why[160];

		for (uint64_t p = 0; p < ram.length / PAGE; p++)
			if (!words_right(&contents, p, (const uint64_t *)(ram.addr + p * PAGE), -1,
					 why))
				_exit(1);
		_exit(0);
	}
	status = status_of(pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	hgm_destroy(h);
	ram_release(&ram);
	provider_free(provider);
}

static void the_parent_is_served_on(void **state)
{
	struct provider *provider = provider_make(PROVIDER_LATER, &contents, 16 * MIB);
	_Atomic bool stop = false;
	struct touchers touchers;
	struct hgm *h = engine(2);
	struct ram ram;
	struct plan plan;

	(void)state;
	assert_ok(hgm_start(h));
	ram_make(&ram, h, BACKING_SHMEM, 16 * MIB, provider_source(provider), HGM_REGION_NO_FILL);
	plan = (struct plan){
		.contents = &contents, .addr = ram.addr, .pages = ram.length / PAGE, .stop = &stop
	};
	touchers_start(&touchers, 2, &plan);
	for (int i = 0; i < FORKS; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		assert_int_equal(status_of(pid), 0);
		nap_us(500);
	}
	atomic_store(&stop, true);
	touchers_join(&touchers);
	assert_ok(hgm_wait(h, 30000));
	assert_pages(&contents, 0, ram.length / PAGE, ram.addr);
	ram_end(&ram);
	hgm_destroy(h);
	provider_free(provider);
}

#define LOOK "HGM_TEST_LOOK"

static bool is_of_the_library(const char *file)
{
	static const char *const parts[] = { "userfaultfd", "eventfd", "memfd:", "/pagemap",
					     "/mem" };

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strstr(file, parts[i]))
			return true;
	return false;
}

/* The number of this process's descriptors that belong to the library. */
static int count_of_the_library(void)
{
	const struct dirent *entry;
	char file[300];
	int found = 0;
	DIR *dir;

	dir = opendir("/proc/self/fd");
	while (dir && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, file, sizeof(file) - 1);

		file[n > 0 ? n : 0] = 0;
		found += is_of_the_library(file);
	}
	if (!dir)
		return 100;
	closedir(dir);
	return found;
}

/* Runs when this program has executed itself. */
__attribute__((constructor)) static void look(void)
{
	if (getenv(LOOK))
		_exit(count_of_the_library());
}

/* A program that the child executes finds none of the library's descriptors. */
static void nothing_survives_exec(void **state)
{
	struct provider *provider = provider_make(PROVIDER_FILE, &contents, 2 * MIB);
	struct hgm *h = engine(2);
	struct ram shmem, anon;
	pid_t pid;

	(void)state;
	assert_ok(hgm_start(h));
	ram_make(&shmem, h, BACKING_SHMEM, 2 * MIB, provider_source(provider), 0);
	ram_make(&anon, h, BACKING_ANON, 2 * MIB, provider_source(provider), 0);
	assert_uint_in_range(count_of_the_library(), 4, 99);
	pid = fork();
	if (!pid) {
		setenv(LOOK, "1", 1);
		execl("/proc/self/exe", "fork", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(status_of(pid), 0);
	ram_end(&shmem);
	ram_end(&anon);
	hgm_destroy(h);
	provider_free(provider);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(children_do_not_have_the_memory, make, end),
	cmocka_unit_test_setup_teardown(a_callers_mapping_is_copied, make, end),
	cmocka_unit_test_setup_teardown(the_parent_is_served_on, make, end),
	cmocka_unit_test_setup_teardown(nothing_survives_exec, make, end),
};

TEST_MAIN(tests)
