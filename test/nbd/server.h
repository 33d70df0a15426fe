/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * NBD servers of tests: nbdkit, on a unix socket in a directory of its own, and the image file that
 * it serves.
 */
#ifndef HGM_TEST_NBD_SERVER_H
#define HGM_TEST_NBD_SERVER_H

#include <hgm/nbd.h>

#include "harness.h"

struct server {
	pid_t pid;
	char dir[64];
	char image[96];
	char socket[96];
	char pidfile[96];
	char log[96];	 /* what the test lets it write there */
	char errors[96]; /* its stderr */
	char uri[160];
};

/* Why tests cannot have nbdkit; NULL: they can. */
const char *server_lacking(void);

/* A directory, and in it an image with these contents; @c NULL: none. */
void server_make(struct server *s, const struct contents *c, uint64_t length);
void server_end(struct server *s); /* stops it, and removes the directory */

/* The image anew. */
void server_image(const struct server *s, const struct contents *c, uint64_t length);

/* nbdkit with these arguments, which end with NULL; {image} and {log} become the names. Waits. */
void server_start(struct server *s, const char *const *args);
void server_kill(struct server *s);
void server_stop(const struct server *s); /* SIGCONT makes it go on */

/* The lines that a source has logged. */
struct lines {
	pthread_mutex_t lock;
	char text[1 << 16];
	size_t used;
};

void lines_note(void *lines, enum hgm_log_level level, const char *text);
bool lines_have(struct lines *lines, const char *text);

#endif
