/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts that the tests of snapshots share: threads that write, and a sink that fails on demand.
 */
#ifndef HGM_TEST_SNAPSHOTTING_H
#define HGM_TEST_SNAPSHOTTING_H

#include "harness.h"

#define WRITERS 4

/* Threads that write, each into its own word. They record what they wrote last to each page. */
struct writers {
	const struct contents *contents;
	char *addr;
	uint64_t pages, first_page; /* of the source */
	_Atomic bool stop, pause;
	_Atomic unsigned int paused;
	struct writer {
		struct writers *writers;
		_Atomic uint64_t writes;
		unsigned int slot;
		pthread_t thread;
		uint64_t *last; /* by page; 0: nothing */
	} writer[WRITERS];
};

void writers_start(struct writers *c, const struct contents *contents, void *addr, uint64_t pages);
void writers_pause(struct writers *c);
void writers_resume(struct writers *c);
void writers_stop(struct writers *c); /* joins the threads; crew_expect() still works */
void writers_end(struct writers *c);

/* The number of writes of all threads together. */
uint64_t writers_writes(const struct writers *c);

/* Waits until each thread has written @writes times more. Fails the test after @ms. */
void writers_wait_for(struct writers *c, uint64_t writes, unsigned int ms);

/* Computes the contents of the memory without touching it. No thread may write meanwhile. */
void writers_expect(const struct writers *c, char *to);

struct sink {
	char *got;
	uint64_t length;
	uint64_t last_end; /* where the last write ended */
	bool ascending;
	int fail;	      /* return this errno */
	uint64_t fail_at;     /* after this many bytes */
	bool returns_nothing; /* return 0 instead */
	uint64_t taken;
	uint64_t most; /* a call takes at most this many bytes */
	_Atomic unsigned int nap_us;
	_Atomic bool hold;	    /* take nothing while it is set */
	_Atomic unsigned int calls; /* that have begun */
};

int64_t sink_write(void *user, const void *buf, uint64_t length, uint64_t offset);
void sink_clear(struct sink *s, uint64_t length);

struct hgm_snapshot_progress snapshot_progress(struct hgm_snapshot *s);
struct hgm_snapshot *snapshot_of(struct hgm *h, const struct hgm_snapshot_opts *opts);

/* Begins the snapshot while the writers are paused. @want receives the contents at that instant. */
void writers_begin(struct writers *c, struct hgm_snapshot *s, char *want);

/* A thread that writes one byte, and may have to wait for the page. */
struct poker {
	pthread_t thread;
	volatile char *at;
	_Atomic bool done;
};

void poker_start(struct poker *p, void *at);
bool poker_done(void *poker);

void assert_same(const char *got, const char *want, uint64_t pages, const char *what);

#endif
