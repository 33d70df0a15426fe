/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts that the tests of discards share: the ways in which memory is given back, a source that
 * records what it is asked for and can keep its answers, and a look at what the host still holds.
 */
#ifndef HGM_TEST_DISCARDING_H
#define HGM_TEST_DISCARDING_H

#include "harness.h"

enum way {
	WAY_CALL,     /* hgm_region_discard() */
	WAY_REMOVE,   /* madvise(MADV_REMOVE) of the primary */
	WAY_DONTNEED, /* madvise(MADV_DONTNEED) of the primary */
	WAY_PUNCH,    /* fallocate(FALLOC_FL_PUNCH_HOLE) of the caller's file */
	WAYS,
};

extern const char *const way_names[];

/* True if this way drops the contents of that memory. */
bool way_drops(enum way way, enum backing backing);

/* True if the library can know that this way has dropped pages that had not arrived. */
bool way_shows(enum way way, enum backing backing);

void discard_by(enum way way, const struct ram *ram, uint64_t offset, uint64_t length);

/* Bytes of memory that the region's backing holds, as the kernel reports it. Touches no page. */
uint64_t held_bytes(const struct ram *ram, enum backing backing);

void assert_zeroes(const char *at, uint64_t length, const char *what);

#define LEDGER_PAGES	4096
#define LEDGER_REQUESTS 512

/* A source that records which pages it is asked for, and keeps its answers while @keep is set. */
struct ledger {
	const struct contents *contents;
	struct hgm_source *source;
	_Atomic bool keep;
	_Atomic uint64_t bad_page, bad_pages; /* a range that fails permanently */
	_Atomic uint32_t asked[LEDGER_PAGES];
	/* Called just before contents are written. Set @user before it. */
	void (*_Atomic before)(void *user, const struct hgm_io *io);
	void *_Atomic user;
	pthread_mutex_t lock;
	unsigned int kept;
	struct hgm_io io[LEDGER_REQUESTS];
};

void ledger_make(struct ledger *l, const struct contents *c, uint64_t length);
void ledger_free(struct ledger *l);
unsigned int ledger_kept(struct ledger *l);
bool ledger_keeps(struct ledger *l, uint64_t page);

/* Answers at most @most of the kept requests, those of the lowest pages first. */
void ledger_give(struct ledger *l, unsigned int most);

/* Answers one request, but not one that asks for @page. That one may arrive at any moment. */
void ledger_give_but(struct ledger *l, uint64_t page);

/* Fails the test if any of these pages was ever asked for. */
void assert_not_asked(struct ledger *l, uint64_t page, uint64_t pages, const char *what);

#endif
