/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROLE	    "HGM_TEST_VMM" /* the descriptor of its socket, or IDLE */
#define IDLE	    "idle"
#define THREADS_MAX 16
#define BLOCK	    (2 * MIB)
#define WRITTEN	    UINT64_C(0x57)

const struct contents vmm_contents = { .seed = 4711, .holes = true };

struct order {
	uint64_t op;
	uint64_t a;
	uint64_t b;
};

/* What the process knows of itself. */
static struct {
	char *addr;
	uint64_t pages;
	uint64_t first_page;
	struct state {
		pthread_mutex_t lock;
		bool own; /* discarded or written: not the source's any more */
		uint64_t value;
	} * state; /* of each page, for VMM_CHURN */
	_Atomic uint64_t wrong;
	uint64_t rounds;
	bool discards;
	pthread_t runner[THREADS_MAX];
	uint64_t runners;
	_Atomic bool pause;
} self;

static bool is_zero(const uint64_t *page)
{
	for (unsigned int i = 0; i < PAGE / 8; i++)
		if (page[i])
			return false;
	return true;
}

static bool is_right(uint64_t page)
{
	const uint64_t *at = (const uint64_t *)(self.addr + page * PAGE);
	char why[160];

	return words_right(&vmm_contents, self.first_page + page, at, -1, why);
}

static uint64_t count(uint64_t from, uint64_t to, bool zeroes)
{
	uint64_t wrong = 0;

	for (uint64_t page = from; page < to; page++)
		wrong += zeroes ? !is_zero((uint64_t *)(self.addr + page * PAGE)) : !is_right(page);
	return wrong;
}

static void *touch_all(void *arg)
{
	uint64_t nth = (uintptr_t)arg, step = nth % 2 ? 2 * nth + 1 : self.pages - 2 * nth - 1;

	for (uint64_t i = 0; i < self.pages; i++) {
		/* An odd step reaches each page of a power of two, and most of any other number. */
		uint64_t page = (i * step + mix(nth)) % self.pages;

		atomic_fetch_add(&self.wrong, !is_right(page));
	}
	return NULL;
}

static void churn(uint64_t page, uint64_t random)
{
	struct state *s = &self.state[page];
	uint64_t *at = (uint64_t *)(self.addr + page * PAGE);

	pthread_mutex_lock(&s->lock);
	if (self.discards && random % 4 == 0) {
		madvise(at, PAGE, MADV_DONTNEED);
		s->own = true;
		s->value = 0;
	}
	if (!s->own)
		atomic_fetch_add(&self.wrong, !is_right(page));
	else
		atomic_fetch_add(&self.wrong,
				 at[0] != s->value || at[9] != (s->value ? WRITTEN : 0));
	if (random % 8 == 1) {
		s->own = true;
		s->value = random;
		memset(at, 0, PAGE);
		at[0] = random;
		at[9] = WRITTEN;
	}
	pthread_mutex_unlock(&s->lock);
}

static void *churn_all(void *arg)
{
	_Atomic uint64_t seed = mix((uintptr_t)arg + 1);

	for (uint64_t i = 0; i < self.rounds && !atomic_load(&self.pause); i++) {
		uint64_t random = random_of(&seed);

		churn((random >> 16) % self.pages, random);
	}
	return NULL;
}

static uint64_t in_threads(void *(*fn)(void *), uint64_t threads)
{
	pthread_t thread[THREADS_MAX];

	atomic_store(&self.wrong, 0);
	for (uint64_t i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, fn, (void *)(uintptr_t)i))
			abort();
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	return atomic_load(&self.wrong);
}

static void run(uint64_t threads)
{
	self.rounds = UINT64_MAX;
	self.discards = false;
	for (self.runners = 0; self.runners < threads; self.runners++)
		if (pthread_create(&self.runner[self.runners], NULL, churn_all,
				   (void *)(uintptr_t)self.runners))
			abort();
}

static void pause_all(void)
{
	atomic_store(&self.pause, true);
	while (self.runners)
		pthread_join(self.runner[--self.runners], NULL);
	atomic_store(&self.pause, false);
}

static void *flood(void *arg)
{
	char *at = self.addr + (uintptr_t)arg * PAGE;

	for (;;)
		madvise(at, PAGE, MADV_DONTNEED);
	return NULL;
}

static uint64_t begin_flood(uint64_t threads)
{
	pthread_t thread;

	for (uint64_t i = 0; i < threads; i++)
		if (pthread_create(&thread, NULL, flood, (void *)(uintptr_t)i))
			abort();
	return 0;
}

uint64_t vmm_hash(const void *memory, uint64_t length)
{
	const uint64_t *word = memory;
	uint64_t hash = 0;

	for (uint64_t i = 0; i < length / 8; i++)
		hash = (hash ^ word[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return hash;
}

static void run_other_program(void)
{
	char *argv[] = { "vmm", NULL }, *envp[] = { ROLE "=" IDLE, NULL };

	execve("/proc/self/exe", argv, envp);
	abort();
}

static uint64_t obey(const struct order *o)
{
	uint64_t *word = (uint64_t *)(self.addr + o->a * PAGE);
	uint64_t len = (o->b - o->a) * PAGE;

	switch ((enum vmm_op)o->op) {
	case VMM_READ:
		return *word;
	case VMM_WRITE:
		*word = o->b;
		return 0;
	case VMM_CHECK:
	case VMM_ZEROES:
		return count(o->a, o->b, o->op == VMM_ZEROES);
	case VMM_DISCARD:
		return (uint64_t)madvise(word, len, MADV_DONTNEED);
	case VMM_UNMAP:
		return (uint64_t)munmap(word, len);
	case VMM_TOUCH:
		return in_threads(touch_all, o->a);
	case VMM_CHURN:
		self.rounds = o->b;
		self.discards = true;
		return in_threads(churn_all, o->a);
	case VMM_RUN:
		run(o->a);
		return 0;
	case VMM_PAUSE:
		pause_all();
		return 0;
	case VMM_HASH:
		return vmm_hash(self.addr, self.pages * PAGE);
	case VMM_FLOOD:
		return begin_flood(o->a);
	case VMM_HUGE:
		return huge_in_smaps(self.addr, self.pages * PAGE);
	case VMM_EXEC:
		run_other_program();
		break;
	case VMM_EXIT:
		_exit(0);
	}
	abort();
}

static void send_descriptor(int sock, int fd, const void *data, size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, 0) != (ssize_t)len)
		abort();
}

static int receive_descriptor(int sock, void *data, size_t len)
{
	struct iovec iov = { .iov_base = data, .iov_len = len };
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	const struct cmsghdr *c;
	int fd = -1;

	assert_int_equal(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC), len);
	c = CMSG_FIRSTHDR(&msg);
	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	else
		fail_msg("no descriptor came");
	return fd;
}

static void make_memory(const struct vmm_opts *o)
{
	uint64_t room = o->length + o->misaligned + 2 * BLOCK;
	int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		abort();
	if (o->memory == VMM_SHARED) {
		fd = memfd_create("vmm", MFD_CLOEXEC);
		flags = MAP_SHARED;
		if (fd < 0 || ftruncate(fd, (off_t)o->length))
			abort();
	}
	at += -(uintptr_t)at % BLOCK + o->misaligned;
	if (o->at && mmap(o->at, o->length, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == o->at)
		at = o->at;
	if (mmap(at, o->length, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, 0) !=
	    at)
		abort();
	self.addr = at;
	self.pages = o->length / PAGE;
	self.first_page = o->first_page;
	self.state = calloc(self.pages, sizeof(self.state[0]));
	if (!self.state)
		abort();
	for (uint64_t i = 0; i < self.pages; i++)
		pthread_mutex_init(&self.state[i].lock, NULL);
	if (o->touched_page) { /* and not its neighbours, as a huge page would */
		madvise(at, o->length, MADV_NOHUGEPAGE);
		at[o->touched_page * PAGE] = 1;
	}
}

/* As Firecracker does. */
static int make_userfaultfd(const struct vmm_opts *o)
{
	struct hgm_uffd_opts uo = { .size = sizeof(uo),
				    .required = HGM_UFFD_FEATURE_EVENT_REMOVE | o->features };
	struct hgm_uffd *u;
	int rc;

	if (o->untold)
		return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	rc = hgm_uffd_open(&u, &uo);
	if (!rc)
		rc = hgm_uffd_register(u, self.addr, o->length, HGM_UFFD_MISSING, NULL);
	if (rc) {
		fprintf(stderr, "vmm: %s\n", hgm_errmsg());
		abort();
	}
	return hgm_uffd_fd(u);
}

static _Noreturn void be_vmm(int sock)
{
	struct vmm_opts o;
	struct order order;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (recv(sock, &o, sizeof(o), MSG_WAITALL) != sizeof(o))
		_exit(1);
	make_memory(&o);
	fd = make_userfaultfd(&o);
	send_descriptor(sock, fd, &self.addr, sizeof(self.addr));
	while (recv(sock, &order, sizeof(order), MSG_WAITALL) == sizeof(order)) {
		uint64_t answer = obey(&order);

		if (send(sock, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			break;
	}
	_exit(0);
}

/* Before main() of the program that is started once more. */
__attribute__((constructor)) static void choose_role(void)
{
	const char *role = getenv(ROLE);

	if (!role)
		return;
	if (strcmp(role, IDLE) == 0)
		for (;;)
			pause();
	be_vmm(atoi(role));
}

void vmm_start(struct vmm *v, const struct vmm_opts *o)
{
	char role[40];
	char *argv[] = { "vmm", NULL }, *envp[] = { role, NULL };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(role, sizeof(role), ROLE "=%d", pair[1]);
	v->pid = fork();
	assert_true(v->pid >= 0);
	if (!v->pid) {
		close(pair[0]);
		execve("/proc/self/exe", argv, envp);
		_exit(127);
	}
	close(pair[1]);
	v->sock = pair[0];
	v->length = o->length;
	v->pidfd = (int)syscall(SYS_pidfd_open, v->pid, 0);
	assert_true(v->pidfd >= 0);
	assert_int_equal(send(v->sock, o, sizeof(*o), 0), sizeof(*o));
	v->uffd = receive_descriptor(v->sock, &v->addr, sizeof(v->addr));
}

void vmm_end(struct vmm *v)
{
	kill(v->pid, SIGKILL);
	assert_int_equal(waitpid(v->pid, NULL, 0), v->pid);
	close(v->pidfd);
	close(v->sock);
	close(v->uffd);
}

void vmm_tell(const struct vmm *v, enum vmm_op op, uint64_t a, uint64_t b)
{
	struct order order = { .op = op, .a = a, .b = b };

	assert_int_equal(send(v->sock, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
}

uint64_t vmm_answer(const struct vmm *v)
{
	uint64_t answer;

	if (recv(v->sock, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		fail_msg("process %d has died", v->pid);
	return answer;
}

uint64_t vmm_do(const struct vmm *v, enum vmm_op op, uint64_t a, uint64_t b)
{
	vmm_tell(v, op, a, b);
	return vmm_answer(v);
}
