/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "continued.h"
#include "play.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOON_MS	 10000
#define WHILE_US 30000

struct scene s = { .fd = -1, .uffd = -1 };
int64_t done;

static bool modelled;

int on(void **state)
{
	const char *kernel = *state;
	struct model_opts opts;

	alarm(120);
	modelled = strcmp(kernel, "linux");
	if (!modelled)
		return 0;
	if (!model_named(kernel, &opts))
		return -1;
	model_begin(&opts);
	return 0;
}

int off(void **state)
{
	unsigned int left;

	(void)state;
	scene_end();
	alarm(0);
	if (!modelled)
		return 0;
	left = model_left();
	model_end();
	return left ? -1 : 0;
}

bool on_linux(void)
{
	return !modelled;
}

static void pool_path(char path[128], uint64_t block, const char *file)
{
	snprintf(path, 128, "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		 (unsigned long long)block >> 10, file);
}

void needs_pages(uint64_t block, uint64_t pages)
{
	struct model_pool p;
	char path[128];
	int fd;

	pool_path(path, block, "nr_hugepages");
	fd = hgm_sys->open(path, O_RDONLY);
	if (fd < 0)
		test_skip("no huge pages of %llu kB on this machine",
			  (unsigned long long)block >> 10);
	hgm_sys->close(fd);
	p = pool_now(block);
	if (p.free - p.promised < pages)
		test_skip("%llu free huge pages of %llu kB are needed", (unsigned long long)pages,
			  (unsigned long long)block >> 10);
}

void scene(uint64_t block, unsigned int pages)
{
	unsigned int shift = (unsigned int)__builtin_ctzll(block);
	void *at;

	needs_pages(block, pages);
	s = (struct scene){ .block = block, .len = pages * block, .uffd = -1 };
	s.fd = hgm_sys->memfd_create("scene", MFD_HUGETLB | shift << HGM_MFD_HUGE_SHIFT);
	assert_true(s.fd >= 0);
	assert_int_equal(hgm_sys->ftruncate(s.fd, s.len), 0);
	assert_int_equal(
		hgm_sys->mmap(&at, NULL, s.len, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0), 0);
	s.primary = at;
	assert_int_equal(
		hgm_sys->mmap(&at, NULL, s.len, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0), 0);
	s.alias = at;
}

void scene_register(uint64_t features, uint64_t modes)
{
	uint64_t ioctls;

	s.uffd = hgm_sys->userfaultfd(O_CLOEXEC | O_NONBLOCK);
	if (s.uffd < 0)
		test_skip("no userfaultfd here");
	assert_int_equal(hgm_sys->uffd_api(s.uffd, &features, &ioctls), 0);
	assert_int_equal(hgm_sys->uffd_register(s.uffd, s.primary, s.len, modes, &s.ioctls), 0);
}

void scene_split(void)
{
	assert_int_equal(hgm_sys->madvise(s.primary, s.len, HGM_MADV_SPLIT), 0);
}

void scene_end(void)
{
	if (s.uffd >= 0)
		hgm_sys->close(s.uffd);
	if (s.primary)
		hgm_sys->munmap(s.primary, s.len);
	if (s.alias)
		hgm_sys->munmap(s.alias, s.len);
	if (s.fd >= 0)
		hgm_sys->close(s.fd);
	s = (struct scene){ .fd = -1, .uffd = -1 };
}

int cont_mode(uint64_t offset, uint64_t len, uint64_t mode)
{
	return hgm_sys->uffd_continue(s.uffd, s.primary + offset, len, mode, &done);
}

int cont(uint64_t offset, uint64_t len)
{
	return cont_mode(offset, len, 0);
}

int copy(uint64_t offset, uint64_t len, char byte)
{
	char *src = malloc(len);
	int rc;

	assert_non_null(src);
	memset(src, byte, len);
	rc = hgm_sys->uffd_copy(s.uffd, s.primary + offset, src, len, 0, &done);
	free(src);
	return rc;
}

int protect(uint64_t offset, uint64_t len, bool wp)
{
	return hgm_sys->uffd_writeprotect(s.uffd, s.primary + offset, len, wp);
}

int wake(uint64_t offset, uint64_t len)
{
	return hgm_sys->uffd_wake(s.uffd, s.primary + offset, len);
}

int advise(uint64_t offset, uint64_t len, int advice)
{
	return hgm_sys->madvise(s.primary + offset, len, advice);
}

int collapse(uint64_t offset, uint64_t len)
{
	return advise(offset, len, HGM_MADV_COLLAPSE);
}

void fill(uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += K4)
		s.alias[at + 5] = (char)(at / K4 % 251 + 1);
}

bool told(struct told *t, int ms)
{
	struct pollfd p = { .fd = s.uffd, .events = POLLIN };
	struct uffd_msg msg;

	for (int spent = 0; spent <= ms; spent += 10) {
		ssize_t n;

		hgm_sys->poll(&p, 1, 10000000);
		n = hgm_sys->read(s.uffd, &msg, sizeof(msg));
		if (n == -EAGAIN)
			continue;
		assert_int_equal(n, sizeof(msg));
		assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
		t->offset = msg.arg.pagefault.address - (uintptr_t)s.primary;
		t->flags = msg.arg.pagefault.flags;
		return true;
	}
	return false;
}

static void *toucher(void *arg)
{
	struct toucher *t = arg;
	volatile char *at = s.primary + t->offset;

	if (t->write)
		*at = 77;
	else
		t->value = *at;
	atomic_store(&t->back, 1);
	return NULL;
}

void touch_start(struct toucher *t, uint64_t offset, bool write)
{
	*t = (struct toucher){ .offset = offset, .write = write, .continued = continued() };
	assert_int_equal(pthread_create(&t->thread, NULL, toucher, t), 0);
}

void touch_end(struct toucher *t)
{
	for (int i = 0; i < SOON_MS && !atomic_load(&t->back); i++)
		usleep(1000);
	if (!atomic_load(&t->back))
		fail_msg("the thread that touched +%#llx still waits",
			 (unsigned long long)t->offset);
	pthread_join(t->thread, NULL);
}

bool touch_waits(struct toucher *t)
{
	usleep(WHILE_US);
	return !atomic_load(&t->back) || continued() != t->continued;
}

char touch_silently(uint64_t offset, bool write)
{
	struct toucher t;
	struct told message;

	touch_start(&t, offset, write);
	for (int i = 0; i < SOON_MS && !atomic_load(&t.back); i++)
		if (told(&message, 0))
			fail_msg("touching +%#llx was told of at +%#llx, flags %#llx",
				 (unsigned long long)offset, (unsigned long long)message.offset,
				 (unsigned long long)message.flags);
	touch_end(&t);
	return t.value;
}

static char *text_of(const char *path)
{
	size_t have = 0, room = 1 << 20;
	char *text = malloc(room);
	int fd = hgm_sys->open(path, O_RDONLY);
	ssize_t n;

	assert_non_null(text);
	assert_true(fd >= 0);
	while ((n = hgm_sys->read(fd, text + have, room - have - 1)) > 0)
		have += (size_t)n;
	text[have] = 0;
	hgm_sys->close(fd);
	return text;
}

/* The rest of the smaps line that begins with @name; "" if there is none. */
static void smaps_line(uint64_t offset, const char *name, char out[256])
{
	char *text = text_of("/proc/self/smaps");
	uint64_t start, end, addr = (uintptr_t)s.primary + offset;
	bool inside = false;
	char *save, *line;

	out[0] = 0;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= addr && addr < end;
		else if (inside && !strncmp(line, name, strlen(name)))
			snprintf(out, 256, "%s ", line + strlen(name));
	}
	free(text);
}

int64_t smaps_kb(uint64_t offset, const char *name)
{
	char with_colon[64], line[256];

	snprintf(with_colon, sizeof(with_colon), "%s:", name);
	smaps_line(offset, with_colon, line);
	return *line ? strtoll(line, NULL, 10) : -1;
}

bool smaps_flag(uint64_t offset, const char *flag)
{
	char token[16], line[256];

	snprintf(token, sizeof(token), " %s ", flag);
	smaps_line(offset, "VmFlags:", line);
	return strstr(line, token);
}

static uint64_t number_of(uint64_t block, const char *file)
{
	char path[128];
	uint64_t value;
	char *text;

	pool_path(path, block, file);
	text = text_of(path);
	value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

struct model_pool pool_now(uint64_t block)
{
	return (struct model_pool){
		.total = number_of(block, "nr_hugepages"),
		.free = number_of(block, "free_hugepages"),
		.promised = number_of(block, "resv_hugepages"),
	};
}

int in_child(int (*fn)(void), const char *words)
{
	static const struct rlimit no_core;
	char text[4096] = "";
	size_t have = 0;
	int ends[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		_exit(fn());
	}
	close(ends[1]);
	while (have < sizeof(text) - 1 &&
	       (n = read(ends[0], text + have, sizeof(text) - 1 - have)) > 0)
		have += (size_t)n;
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !words || !strstr(text, words))
		fail_msg("status %#x, '%s'", (unsigned int)status, text);
	return 0;
}

uint64_t pages_with(uint64_t bit)
{
	int fd = hgm_sys->open("/proc/self/pagemap", 0);
	uint64_t word, n = 0;

	for (uint64_t at = 0; at < s.len; at += K4) {
		hgm_sys->pread(fd, &word, 8, ((uintptr_t)s.primary + at) / K4 * 8);
		n += !!(word & bit);
	}
	hgm_sys->close(fd);
	return n;
}
