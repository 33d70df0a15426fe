/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server that answers as no good server does. It is a thread of the test, and serves one
 * connection at a time.
 */
#ifndef HGM_TEST_NBD_FAKE_SERVER_H
#define HGM_TEST_NBD_FAKE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fake_manner {
	FAKE_GOOD,	/* each byte is 0x5a */
	FAKE_SHORT,	/* half of the bytes, and says that this is all */
	FAKE_ELSEWHERE, /* bytes of another place */
	FAKE_CUT,	/* half of the bytes, and closes the connection */
	FAKE_LATER,	/* of two requests, an error for the second, and closes the connection */
	FAKE_GARBAGE,	/* no NBD at all, once connected */
};

struct fake_server {
	pthread_t thread;
	int listener;
	_Atomic bool stop;
	_Atomic enum fake_manner manner;
	_Atomic unsigned int misdeeds; /* answers that were not good */
	uint64_t size;
	_Atomic(const char *) name; /* of the export, of 3 bytes */
	char dir[64];
	char socket[96];
	char uri[160];
};

void fake_start(struct fake_server *f, uint64_t size, enum fake_manner manner);
void fake_end(struct fake_server *f);

#endif
