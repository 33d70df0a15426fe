/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of snapshots share: threads that write, a sink that fails on demand.
 */
#ifndef HGM_TEST_CREW_H
#define HGM_TEST_CREW_H

#include "harness.h"

#define CREW 4

/* Threads that write, each into a word of its own, and know what they wrote last where. */
struct crew {
	const struct contents *contents;
	char *addr;
	uint64_t pages, first_page; /* of the source */
	_Atomic bool stop, pause;
	_Atomic unsigned int paused;
	_Atomic uint64_t writes;
	struct writer {
		struct crew *crew;
		unsigned int slot;
		pthread_t thread;
		uint64_t *last; /* by page; 0: nothing */
	} writer[CREW];
};

void crew_start(struct crew *c, const struct contents *contents, void *addr, uint64_t pages);
void crew_pause(struct crew *c);
void crew_resume(struct crew *c);
void crew_stop(struct crew *c); /* joined; what it wrote can still be expected */
void crew_end(struct crew *c);

/* What all memory holds, with nobody writing: without touching it. */
void crew_expect(const struct crew *c, char *to);

struct sink {
	char *got;
	uint64_t length;
	uint64_t last_end; /* ascending so far */
	bool ascending;
	int fail;	      /* this errno, */
	uint64_t fail_at;     /* after so many bytes */
	bool returns_nothing; /* then, instead */
	uint64_t taken;
	uint64_t most; /* a call takes at most so much */
	_Atomic unsigned int nap_us;
	_Atomic bool hold; /* take nothing while it is set */
};

int64_t sink_write(void *user, const void *buf, uint64_t length, uint64_t offset);
void sink_clear(struct sink *s, uint64_t length);

struct hgm_snapshot_progress snapshot_progress(struct hgm_snapshot *s);
struct hgm_snapshot *snapshot_of(struct hgm *h, const struct hgm_snapshot_opts *opts);

/* The instant, while the crew stands still; @want becomes what memory holds then. */
void crew_begin(struct crew *c, struct hgm_snapshot *s, char *want);

/* A thread that writes one byte, and waits if it must. */
struct poker {
	pthread_t thread;
	volatile char *at;
	_Atomic bool done;
};

void poker_start(struct poker *p, void *at);
bool poker_done(void *poker);

void assert_same(const char *got, const char *want, uint64_t pages, const char *what);

#endif
