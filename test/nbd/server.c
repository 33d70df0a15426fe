/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbdkit for tests.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 20000

const char *server_lacking(void)
{
	return system("nbdkit --version >/dev/null 2>&1") ? "no nbdkit here" : NULL;
}

void server_image(const struct server *s, const struct contents *c, uint64_t length)
{
	uint8_t page[PAGE] __attribute__((aligned(8)));
	int fd = open(s->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	for (uint64_t p = 0; p < length / PAGE; p++) {
		if (contents_hole(c, p))
			continue;
		contents_write(c, p, 1, page);
		assert_int_equal(pwrite(fd, page, PAGE, (off_t)(p * PAGE)), PAGE);
	}
	close(fd);
}

void server_make(struct server *s, const struct contents *c, uint64_t length)
{
	const char *tmp = getenv("TMPDIR");

	memset(s, 0, sizeof(*s));
	snprintf(s->dir, sizeof(s->dir), "%s/hgm-nbd-XXXXXX",
		 tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->image, sizeof(s->image), "%s/image", s->dir);
	snprintf(s->socket, sizeof(s->socket), "%s/socket", s->dir);
	snprintf(s->pidfile, sizeof(s->pidfile), "%s/pid", s->dir);
	snprintf(s->errors, sizeof(s->errors), "%s/errors", s->dir);
	snprintf(s->log, sizeof(s->log), "%s/log", s->dir);
	snprintf(s->uri, sizeof(s->uri), "nbd+unix:///?socket=%s", s->socket);
	if (c)
		server_image(s, c, length);
}

void server_end(struct server *s)
{
	if (s->pid)
		server_kill(s);
	unlink(s->image);
	unlink(s->log);
	unlink(s->errors);
	assert_int_equal(rmdir(s->dir), 0);
}

static const char *name_of(const struct server *s, const char *arg, char *room, size_t bytes)
{
	static const char image[] = "{image}", log[] = "{log}";
	const char *at = strstr(arg, image);

	if (at) {
		snprintf(room, bytes, "%.*s%s", (int)(at - arg), arg, s->image);
		return room;
	}
	at = strstr(arg, log);
	if (at) {
		snprintf(room, bytes, "%.*s%s", (int)(at - arg), arg, s->log);
		return room;
	}
	return arg;
}

static bool is_listening(void *arg)
{
	struct server *s = arg;
	struct stat st;

	if (waitpid(s->pid, NULL, WNOHANG)) {
		FILE *errors = fopen(s->errors, "r");
		char line[200] = "";

		if (errors && !fgets(line, sizeof(line), errors))
			line[0] = 0;
		fail_msg("nbdkit has ended instead of serving: %s", line);
	}
	return !stat(s->pidfile, &st) && st.st_size;
}

void server_start(struct server *s, const char *const *args)
{
	const char *argv[24] = { "nbdkit", "-f", "-U", s->socket, "-P", s->pidfile };
	char room[4][200];
	int argc = 6, rooms = 0;

	for (; *args; args++) {
		assert_true(argc < 23 && rooms < 4);
		argv[argc] = name_of(s, *args, room[rooms], sizeof(room[0]));
		rooms += argv[argc++] != *args;
	}
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(open(s->errors, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), 2);
		execvp(argv[0], (char **)(uintptr_t)argv);
		_exit(127);
	}
	assert_true(eventually(is_listening, s, START_MS));
}

void server_kill(struct server *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
	unlink(s->socket);
	unlink(s->pidfile);
}

/* All of its threads have stopped when this returns. */
void server_stop(const struct server *s)
{
	int status;

	kill(s->pid, SIGSTOP);
	assert_int_equal(waitpid(s->pid, &status, WUNTRACED), s->pid);
	assert_true(WIFSTOPPED(status));
}

void lines_note(void *user, enum hgm_log_level level, const char *text)
{
	struct lines *lines = user;
	int n;

	(void)level;
	pthread_mutex_lock(&lines->lock);
	n = snprintf(lines->text + lines->used, sizeof(lines->text) - lines->used, "%s\n", text);
	if (n > 0 && (size_t)n < sizeof(lines->text) - lines->used)
		lines->used += (size_t)n;
	lines->text[lines->used] = 0;
	pthread_mutex_unlock(&lines->lock);
}

bool lines_have(struct lines *lines, const char *text)
{
	bool found;

	pthread_mutex_lock(&lines->lock);
	found = strstr(lines->text, text);
	pthread_mutex_unlock(&lines->lock);
	return found;
}
