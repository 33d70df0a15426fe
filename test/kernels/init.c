/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first and only process of a kernel that ./run kernels boots: it makes the machine fit for
 * tests, runs what /plan lists, one after another, and ends the machine.
 *
 * A line of /plan: a name, a limit in seconds, a command and its arguments, by single spaces. What
 * comes back, through the second serial port, is for results.py:
 *
 *	@ begin NAME
 *	the program's output
 *	@ end NAME WAIT-STATUS MILLISECONDS
 *	...
 *	@ all
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESULTS	   "/dev/ttyS1"
#define HUGE_PAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define WORDS_MAX  32
#define TIMED_OUT  124 /* as an exit status, like timeout(1) */

static void complain(const char *what)
{
	printf("init: %s: %s\n", what, strerror(errno));
}

static void mount_one(const char *type, const char *at, const char *options)
{
	mkdir(at, 0755);
	if (mount(type, at, type, 0, options))
		complain(at);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		complain(path);
	if (fd >= 0)
		close(fd);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void run(char **words, int out)
{
	int in = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	dup2(in, 0);
	dup2(out, 1);
	dup2(out, 2);
	execv(words[0], words);
	complain(words[0]);
	_exit(127);
}

/* The wait status of what ran, killed with all its children when it is too late. */
static int run_limited(char **words, unsigned int seconds, int out)
{
	uint64_t end = now_ms() + seconds * UINT64_C(1000);
	pid_t pid = fork();
	int status = 0;

	if (pid < 0)
		return 127 << 8;
	if (!pid)
		run(words, out);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (now_ms() > end) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return TIMED_OUT << 8;
		}
		usleep(2000);
	}
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return status;
}

static void run_line(char *line, FILE *results)
{
	char *words[WORDS_MAX + 1];
	unsigned int n = 0;
	char *rest = line;
	uint64_t began;
	int status;

	line[strcspn(line, "\n")] = '\0';
	while (n < WORDS_MAX && (words[n] = strsep(&rest, " ")))
		n++;
	words[n] = NULL;
	if (n < 3)
		return;
	fprintf(results, "@ begin %s\n", words[0]);
	fflush(results);
	printf("init: %s\n", words[0]);
	began = now_ms();
	status = run_limited(words + 2, (unsigned int)strtoul(words[1], NULL, 10), fileno(results));
	fprintf(results, "\n@ end %s %d %llu\n", words[0], status,
		(unsigned long long)(now_ms() - began));
	fflush(results);
}

static void run_all(FILE *results)
{
	FILE *plan = fopen("/plan", "r");
	char line[1024];

	if (!plan) {
		complain("/plan");
		return;
	}
	while (fgets(line, sizeof(line), plan))
		run_line(line, results);
	fclose(plan);
	fprintf(results, "@ all\n");
}

int main(int argc, char **argv)
{
	const char *huge_pages = getenv("nr_hugepages");
	FILE *results;

	(void)argv;
	if (getpid() != 1) {
		fprintf(stderr, "%s: the first process of a test machine\n",
			argc ? argv[0] : "init");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	mount_one("devtmpfs", "/dev", NULL);
	mount_one("proc", "/proc", NULL);
	mount_one("sysfs", "/sys", NULL);
	mount_one("tmpfs", "/tmp", "mode=1777");
	mkdir("/var", 0755);
	mount_one("ramfs", "/var/tmp", NULL); /* an ordinary file system, unlike tmpfs */
	setenv("TMPDIR", "/tmp", 1);	      /* ramfs does not tell how much is free */
	write_file(HUGE_PAGES, huge_pages ? huge_pages : "128");
	chdir("/tmp");
	results = fopen(RESULTS, "w");
	if (results)
		run_all(results);
	else
		complain(RESULTS);
	if (results)
		fclose(results); /* and thereby drained */
	sync();
	reboot(RB_AUTOBOOT);
	return 1;
}
