/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of libhgm_sandbox(7) is sufficient, and each entry is needed. The test observes each
 * call. It also runs under a filter that allows only the list, without /proc, without privileges,
 * and with little room.
 */
#include "harness.h"
#include "observe.h"
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH	(4 * MIB)
#define PAGES	(LENGTH / PAGE)
#define WAIT_MS 100000
#define NOBODY	65534

enum phase {
	PROBE,
	CREATE,
	REGION,
	PEER,
	SERVE,
	SNAPSHOT,
	DIRTY,
	DISCARD,
	DESTROY,
	PHASES,
};

#define OURS PHASES /* the calls of the test itself */

_Static_assert(OURS < OBSERVE_PHASES, "phases");

static const char *const phase_names[] = {
	[PROBE] = "probe", [CREATE] = "create",	  [REGION] = "region",
	[PEER] = "peer",   [SERVE] = "serve",	  [SNAPSHOT] = "snapshot",
	[DIRTY] = "dirty", [DISCARD] = "discard", [DESTROY] = "destroy",
};

/*
 * The list of the manual page: a phase, or "always", and a name, or some from which the C library
 * chooses.
 */
static const struct entry {
	const char *phase, *names;
} profile[] = {
#include "profile.h"
};

#define ENTRIES (sizeof(profile) / sizeof(profile[0]))

/* Is the memory of another process served as well, and how is that process known? */
enum other {
	NONE,
	BY_PID,
	BY_PIDFD,
};

/* What a child process does. */
struct scene {
	uint32_t backing;
	bool from_file;
	uint32_t way;	 /* of dirty tracking */
	enum phase jail; /* no file exists from this phase on */
	enum other other;
	void (*enter)(const struct scene *scene, enum phase);
};

/* What a child process leaves to its parent. */
static struct report {
	struct observed observed;
	_Atomic int denied; /* a system call, -1: none */
	char text[400];
} * report;

static unsigned char *contents;
static int file, saved;
static struct vmm vmm; /* whose memory is served as well */

static int64_t give(void *user, const struct hgm_io *io)
{
	(void)user;
	memcpy(io->buf, contents + io->offset, io->length);
	return (int64_t)io->length;
}

#define NEED(condition)                                                                    \
	do {                                                                               \
		if (!(condition)) {                                                        \
			snprintf(report->text, sizeof(report->text), "%s: %s", #condition, \
				 hgm_errmsg());                                            \
			return 1;                                                          \
		}                                                                          \
	} while (0)

static void write_all(unsigned char *at)
{
	for (uint64_t i = 0; i < LENGTH; i += PAGE)
		((volatile unsigned char *)at)[i] = contents[i];
}

static int save(struct hgm *h, struct hgm_region *r, unsigned char *at)
{
	const struct hgm_snapshot_opts o = { .size = sizeof(o),
					     .regions = &r,
					     .count = 1,
					     .fd = saved,
					     .flags = HGM_SNAPSHOT_SYNC,
					     .rate_bytes = 16 * LENGTH };
	struct hgm_snapshot *s;

	NEED(!hgm_snapshot_create(&s, h, &o));
	NEED(!hgm_snapshot_begin(s));
	write_all(at);
	NEED(!hgm_snapshot_wait(s, WAIT_MS));
	hgm_snapshot_destroy(s);
	return 0;
}

static int track(struct hgm_region *r, uint32_t way, unsigned char *at)
{
	const struct hgm_dirty_opts o = { .size = sizeof(o), .flags = way };
	static uint64_t bitmap[PAGES / 64], found;
	struct hgm_dirty *d;

	NEED(!hgm_dirty_start(&d, r, &o));
	NEED(!hgm_dirty_collect(d, 0, PAGES, bitmap, NULL));
	write_all(at);
	NEED(!hgm_dirty_collect(d, 0, PAGES, bitmap, &found));
	NEED(found == PAGES);
	hgm_dirty_stop(d);
	return 0;
}

static int serve_other(struct hgm *h, const struct hgm_region_opts *like, bool by_pid)
{
	const struct hgm_peer_opts po = { .size = sizeof(po),
					  .uffd = vmm.uffd,
					  .pidfd = by_pid ? 0 : vmm.pidfd,
					  .pid = by_pid ? vmm.pid : 0 };
	struct hgm_region_opts ro = { .size = sizeof(ro),
				      .length = vmm.length,
				      .source = like->source,
				      .backing = HGM_BACKING_PEER,
				      .flags = like->flags,
				      .addr = vmm.addr };
	struct hgm_region *r;

	NEED(!hgm_peer_create(&ro.peer, h, &po));
	NEED(!hgm_region_create(&r, h, &ro));
	return 0;
}

static int live(const struct scene *scene)
{
	struct hgm_region_opts ro = { .size = sizeof(ro),
				      .length = LENGTH,
				      .backing = scene->backing,
				      .flags = scene->from_file ? HGM_REGION_NO_FILL : 0 };
	struct hgm_caps *caps;
	struct hgm_region *r;
	unsigned char *at;
	struct hgm *h;

	scene->enter(scene, PROBE);
	NEED(!hgm_caps_probe(&caps, 0));
	hgm_caps_free(caps);
	scene->enter(scene, CREATE);
	NEED(!hgm_create(&h, NULL));
	NEED(!(scene->from_file ? hgm_source_fd(&ro.source, file)
				: hgm_source_fn(&ro.source, give, NULL, NULL)));
	scene->enter(scene, REGION);
	NEED(!hgm_region_create(&r, h, &ro));
	scene->enter(scene, CREATE);
	NEED(!hgm_start(h));
	if (scene->other) {
		scene->enter(scene, PEER);
		if (serve_other(h, &ro, scene->other == BY_PID))
			return 1;
	}
	scene->enter(scene, SERVE);
	at = hgm_region_addr(r);
	NEED(!memcmp(at, contents, LENGTH));
	NEED(!hgm_wait(h, WAIT_MS));
	scene->enter(scene, SNAPSHOT);
	if (save(h, r, at))
		return 1;
	scene->enter(scene, DIRTY);
	if (track(r, scene->way, at))
		return 1;
	scene->enter(scene, DISCARD);
	NEED(!memcmp(at, contents, LENGTH));
	NEED(!hgm_region_discard(r, 0, LENGTH));
	NEED(!at[0] && !at[LENGTH - 1]);
	scene->enter(scene, DESTROY);
	hgm_source_destroy(ro.source);
	hgm_destroy(h);
	return 0;
}

/*
 * Waits for a child, and stops and continues it all the time: a thread that sleeps until some time
 * then goes on sleeping by restart_syscall(2).
 */
static int wait_and_disturb(pid_t child)
{
	int status;

	for (;;) {
		pid_t ended = waitpid(child, &status, WNOHANG | WUNTRACED);

		assert_true(ended >= 0);
		if (ended && !WIFSTOPPED(status))
			return status;
		kill(child, ended ? SIGCONT : SIGSTOP);
		nap_us(ended ? 5000 : 100);
	}
}

/* Each life runs in a child process, because observing and denying calls never end for a thread. */
static void live_in_child(const struct scene *scene, int (*confine)(void))
{
	const char *why = NULL;
	pid_t child;
	int status;

	report->denied = -1;
	report->text[0] = 0;
	if (scene->other) {
		vmm_start(&vmm, &(struct vmm_opts){ .length = LENGTH });
		/* It waits for its pages. Nobody asks whether they are right. */
		vmm_tell(&vmm, VMM_TOUCH, 2, 0);
	}
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(confine() ? 77 : live(scene));
	status = wait_and_disturb(child);
	if (scene->other)
		vmm_end(&vmm);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		test_skip("no seccomp here");
	if (report->denied >= 0)
		why = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, report->denied);
	if (status)
		fail_msg("backing %u, %s: status %#x: %s%s", scene->backing,
			 phase_names[report->observed.phase], status, report->text, why ? why : "");
	assert_int_equal(report->observed.phase, DESTROY);
}

static bool has_name(const char *names, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = names; (at = strstr(at, name)); at += length)
		if ((at == names || at[-1] == ' ') && (!at[length] || at[length] == ' '))
			return true;
	return false;
}

/* True if the call is listed for this phase. */
static bool listed(const char *phase, const char *name)
{
	for (size_t i = 0; i < ENTRIES; i++)
		if (!strcmp(profile[i].phase, phase) && has_name(profile[i].names, name))
			return true;
	return false;
}

/* Threads that the phase before has started or ended may still make its calls. */
static bool may_call(enum phase phase, const char *name)
{
	return listed("always", name) || listed(phase_names[phase], name) ||
	       (phase > PROBE && listed(phase_names[phase - 1], name)) ||
	       (phase == CREATE && listed("region", name)) ||
	       (phase == SERVE && (listed("create", name) || listed("region", name))) ||
	       (phase >= CREATE && listed("serve", name));
}

static bool was_called(enum phase phase, const char *names)
{
	for (int nr = 0; nr < OBSERVE_CALLS; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
		bool is = name && has_name(names, name);

		free(name);
		if (is && report->observed.calls[phase][nr])
			return true;
	}
	return false;
}

static unsigned int check_listed(void)
{
	unsigned int wrong = 0;

	for (enum phase phase = 0; phase < PHASES; phase++)
		for (int nr = 0; nr < OBSERVE_CALLS; nr++) {
			char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);

			if (report->observed.calls[phase][nr] && !may_call(phase, name)) {
				print_message("# %s: %s is called, and not listed\n",
					      phase_names[phase], name);
				wrong++;
			}
			free(name);
		}
	return wrong;
}

static unsigned int check_needed(void)
{
	unsigned int wrong = 0;

	for (size_t i = 0; i < ENTRIES; i++) {
		const struct entry *e = &profile[i];
		bool called = false;

		for (enum phase phase = 0; phase < PHASES; phase++)
			if (!strcmp(e->phase, "always") || !strcmp(e->phase, phase_names[phase]))
				called |= was_called(phase, e->names);
		if (!called)
			print_message("# %s: %s is listed, and not called\n", e->phase, e->names);
		wrong += !called;
	}
	return wrong;
}

static int observe(void)
{
	return observe_begin(&report->observed);
}

static char root[] = "/tmp/hgm-sandbox-XXXXXX";

/* Enters it once. Afterwards the path leads nowhere. */
static void enter_jail(void)
{
	static bool jailed;

	if (jailed)
		return;
	jailed = true;
	if (chroot(root) || chdir("/"))
		abort();
}

static void enter_observed(const struct scene *scene, enum phase phase)
{
	atomic_store(&report->observed.phase, OURS);
	if (scene->jail == phase)
		enter_jail();
	atomic_store(&report->observed.phase, phase);
}

static void need_this_kernel(void)
{
#if !defined(__x86_64__)
	test_skip("the page lists the names of x86-64");
#endif
	skip_unless(KERNEL_PAGEMAP_SCAN); /* without it, calls happen that the page excepts */
	if (geteuid())
		test_skip("only root may chroot, and open /dev/userfaultfd");
}

static const struct scene scenes[] = {
	{ HGM_BACKING_SHMEM, false, 0, PHASES, BY_PID, NULL },
	{ HGM_BACKING_SHMEM, true, HGM_DIRTY_SYNC, PHASES, NONE, NULL },
	{ HGM_BACKING_SHMEM_LAZY, false, 0, DIRTY, BY_PIDFD, NULL },
	{ HGM_BACKING_SHMEM_LAZY, true, 0, CREATE, NONE, NULL },
	{ HGM_BACKING_ANON, false, HGM_DIRTY_SYNC, PHASES, NONE, NULL },
	{ HGM_BACKING_ANON, true, 0, PHASES, NONE, NULL },
};
#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

static void live_all(void (*enter)(const struct scene *scene, enum phase phase),
		     int (*confine)(void))
{
	for (size_t i = 0; i < SCENES; i++) {
		struct scene scene = scenes[i];

		scene.enter = enter;
		live_in_child(&scene, confine);
	}
}

static void listed_and_needed(void **state)
{
	unsigned int wrong;

	(void)state;
	need_this_kernel();
	watch("observed", 240);
	live_all(enter_observed, observe);
	wrong = check_listed() + check_needed();
	calm();
	if (wrong)
		fail_msg("libhgm_sandbox(7) is wrong about %u system calls", wrong);
}

static void on_denied(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	report->denied = info->si_syscall;
	_exit(1);
}

/*
 * Allows all calls of the phases from @first on, and the calls that only this test makes. The
 * filter applies to all threads.
 */
static int allow(enum phase first, const char *const *ours)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
	int rc = filter ? seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

	for (size_t i = 0; !rc && i < ENTRIES; i++) {
		char names[100], *rest = names, *name;
		enum phase phase = 0;

		while (phase < PHASES && strcmp(profile[i].phase, phase_names[phase]) != 0)
			phase++;
		if (phase < first)
			continue;
		snprintf(names, sizeof(names), "%s", profile[i].names);
		while ((name = strsep(&rest, " ")))
			if (strcmp(name, "or") != 0)
				rc |= seccomp_rule_add(filter, SCMP_ACT_ALLOW,
						       seccomp_syscall_resolve_name(name), 0);
	}
	for (; !rc && *ours; ours++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(*ours),
				      0);
	if (!rc)
		rc = seccomp_load(filter);
	seccomp_release(filter);
	return rc;
}

static void limit(int what, uint64_t most)
{
	const struct rlimit limit = { .rlim_cur = most, .rlim_max = most };

	if (setrlimit((__rlimit_resource_t)what, &limit))
		abort();
}

static uint64_t mapped_bytes(void)
{
	unsigned long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "r");

	if (!statm || fscanf(statm, "%lu", &pages) != 1)
		abort();
	fclose(statm);
	return pages * PAGE;
}

/*
 * No file, no privilege, and little room: enough for a snapshot's pool, its threads and its file.
 */
static void confine_rest(void)
{
	/* A thread may still be in the signal that tells it of its new user. */
	static const char *const ours[] = { "exit_group", "rt_sigreturn", NULL };
	uint64_t mapped = mapped_bytes();
	int next = dup(0);

	enter_jail();
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		abort();
	limit(RLIMIT_NOFILE, (uint64_t)next + 2);
	close(next);
	limit(RLIMIT_AS, mapped + 32 * MIB);
	limit(RLIMIT_FSIZE, LENGTH);
	limit(RLIMIT_MEMLOCK, 0);
	if (allow(SERVE, ours))
		abort();
}

static void enter_confined(const struct scene *scene, enum phase phase)
{
	(void)scene;
	if (phase == SERVE)
		confine_rest();
	atomic_store(&report->observed.phase, phase);
}

static int confine(void)
{
	/* The calls of confine_rest(), and those that the C library makes for it on each thread. */
	static const char *const ours[] = {
		"exit_group",	"chroot",	"chdir",     "setgroups",
		"setresgid",	"setresuid",	"prlimit64", "seccomp",
		"prctl",	"rt_sigreturn", "tgkill",    "dup",
		"rt_sigaction", "getrandom",	"uname",     NULL
	};
	struct sigaction denied = { .sa_sigaction = on_denied, .sa_flags = SA_SIGINFO };

	sigaction(SIGSYS, &denied, NULL);
	return allow(PROBE, ours);
}

static void under_just_that(void **state)
{
	(void)state;
	need_this_kernel();
	watch("confined", 240);
	live_all(enter_confined, confine);
	calm();
}

static int make(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(root));
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	file = memfd_create("contents", MFD_CLOEXEC);
	saved = memfd_create("saved", MFD_CLOEXEC);
	assert_true(report != MAP_FAILED && file >= 0 && saved >= 0);
	assert_int_equal(ftruncate(file, LENGTH), 0);
	contents = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_true(contents != MAP_FAILED);
	for (uint64_t i = 0; i < LENGTH; i++)
		contents[i] = (unsigned char)(i / PAGE + i % 249 + 1);
	return 0;
}

static int remove_root(void **state)
{
	(void)state;
	return rmdir(root);
}

static const struct CMUnitTest tests[] = {
	/*
	 * The tests run in child processes. These have none of the library's threads, so this
	 * process must have none yet.
	 */
	cmocka_unit_test(listed_and_needed),
	cmocka_unit_test(under_just_that),
};

int main(void)
{
	return cmocka_run_group_tests(tests, make, remove_root);
}
