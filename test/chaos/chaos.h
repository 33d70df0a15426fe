/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random lives against the public interface. A life is an engine with a few arenas, touchers, and
 * actors. Each arena has one region after the other. The touchers read and write all of them. The
 * actors do everything else that a caller can do meanwhile. Each byte that is read is compared with
 * what it must be.
 *
 * Choices come from a seed. The same seed plays the same life, except for the timing of the
 * threads.
 */
#ifndef HGM_TEST_CHAOS_H
#define HGM_TEST_CHAOS_H

#include <pthread.h>
#include <stdatomic.h>

#include "../system/harness.h"
#include "random.h"

#define ARENAS	   4
#define ARENA_MAX  (16 * MIB)
#define PAGES_MAX  (ARENA_MAX / PAGE)
#define WORDS	   (PAGE / sizeof(uint64_t))
#define TOUCHERS   8
#define DISCARDERS 2
#define GUARDS	   2
#define HISTORY	   65536

/* What a life does (choice.c). The bits before these are the backings. */
enum act {
	ACT_DISCARD = BACKINGS,
	ACT_RAW,
	ACT_SNAPSHOT,
	ACT_DIRTY,
	ACT_WATCH,
	ACT_CALLS,
	ACT_ENDS,      /* regions are destroyed and created, engines are destroyed in use */
	ACT_ERRORS,    /* sources fail and stall */
	ACT_EAGAIN,    /* the kernel refuses temporarily */
	ACT_UNALIGNED, /* memory of the caller is not aligned to blocks */
	ACTS,
};

bool may(unsigned int act);
bool choose(const char *list); /* false: a word is not known */
void print_choices(FILE *to);

/* A thread, and what it does at the moment. */
struct actor {
	const char *name;
	unsigned int number;
	pthread_t thread;
	struct random random;
	const char *_Atomic doing; /* NULL: nothing that could hang */
	_Atomic uint64_t since_us;
	_Atomic uint64_t page, pages;
	_Atomic unsigned int arena;
};

void does(struct actor *a, const char *what, unsigned int arena, uint64_t page, uint64_t pages);
void did(struct actor *a);

/* Something that was done to an arena. */
struct event {
	const char *_Atomic what;
	_Atomic uint64_t at_us;
	_Atomic uint64_t value;
	_Atomic uint32_t page, pages;
	_Atomic uint32_t who;
};

/*
 * What a page must hold: a generation and marks. Generation 0 means the contents of the source. Any
 * other one is of a write or of a discard. A page is written to only by its owner, but any thread
 * may discard it meanwhile. Then each word is the one or the other, until the owner has written
 * again.
 */
#define SOURCE	    UINT64_C(0)
#define GENERATION  ((UINT64_C(1) << 48) - 1)
#define PART_SOURCE (UINT64_C(1) << 56) /* the first words are written, the rest is the source's */
#define PART_ZERO   (UINT64_C(1) << 57) /* likewise, but the rest is zero */
#define ZEROED	    (UINT64_C(1) << 58) /* was discarded */
#define DROPPING    (UINT64_C(1) << 60) /* being discarded: each word is this, or zero */
#define WRITING	    (UINT64_C(1) << 61)
#define MIXED	    (UINT64_C(1) << 62) /* was discarded while it was written to */
#define PART_WORDS  16

static inline bool is_source(uint64_t truth)
{
	return !(truth & GENERATION);
}

static inline bool is_zero(uint64_t truth)
{
	return truth & ZEROED;
}

static inline bool is_written(uint64_t truth)
{
	return truth & GENERATION && !(truth & ZEROED);
}

enum arena_state {
	ARENA_EMPTY,
	ARENA_LIVE,
	ARENA_ENDS,
};

struct supply;

/* What decides which pages of a region can be poisoned. */
struct origin {
	enum backing backing;
	const struct supply *supply;
};

struct arena {
	unsigned int index;
	_Atomic enum arena_state state;
	_Atomic unsigned int pins; /* touchers inside */
	pthread_rwlock_t use;	   /* read: calls on the region; write: its end */
	enum backing backing;
	uint32_t flags;
	_Atomic uint64_t pages;
	uint64_t run; /* this many pages in a row have one owner */
	struct ram ram;
	char *_Atomic addr;
	struct supply *supply;
	_Atomic uint64_t truth[PAGES_MAX];
	_Atomic uint32_t drops[PAGES_MAX]; /* how often dropped without the library, ever */
	pthread_mutex_t dirty_lock;
	struct hgm_dirty *dirty; /* for hgm_dirty_mark() */
	void *left_watch;	 /* freed with the region */
	struct event history[HISTORY];
	_Atomic uint64_t events;
};

struct life {
	uint64_t seed;
	uint64_t begun_us;
	struct random random;
	struct hgm *h;
	struct arena arena[ARENAS];
	_Atomic uint64_t generation;
	_Atomic bool actors_stop, touchers_stop;
	_Atomic unsigned int paused;
	_Atomic bool writes[TOUCHERS];
	pthread_mutex_t structure; /* which regions exist */
	struct actor toucher[TOUCHERS];
	unsigned int again_one_in; /* one in so many kernel calls says EAGAIN; 0: none */
};

struct tally {
	_Atomic uint64_t lives, reads, writes, discards, drops, remaps, snapshots, snapshot_pages;
	_Atomic uint64_t collections, watches, regions, kills, poisoned, refused;
};

extern struct life life;
extern struct tally tally;
extern const struct contents chaos_contents;

/* The page of the source that belongs to a page of an arena. */
uint64_t source_page(const struct arena *a, uint64_t page);

/* life.c */
void live(uint64_t seed, uint64_t us);

/* arena.c */
void arena_begin(struct arena *a, struct random *r);
void arena_end(struct arena *a, struct actor *by);
void arena_ended(struct arena *a);	   /* after the engine's end */
struct arena *arena_use(struct random *r); /* a live one, locked for use; NULL: none */
void arena_release(struct arena *a);
uint64_t arena_page(const struct arena *a, struct random *r); /* a random page */
void *mover(void *actor);				      /* destroys and creates regions */

/* truth.c */
uint64_t next_generation(void);
uint64_t truth_of(const struct arena *a, uint64_t page);
void words_expected(const struct arena *a, uint64_t page, uint64_t truth, uint64_t to[WORDS]);
/* Returns the first word that is wrong. -1: none. */
int words_wrong(const struct arena *a, uint64_t page, uint64_t truth, bool or_zero,
		const uint64_t *in);
bool may_be_poisoned(const struct arena *a, uint64_t page, uint64_t truth);
/* The same of an arena that another region may have by now. */
bool origin_may_be_poisoned(const struct arena *a, struct origin origin, uint64_t page,
			    uint64_t truth);

/* access.c: 0, or the signal that the access raised */
void catch_signals(void);
int page_copy(uint64_t to[WORDS], const void *from);
int page_store(void *to, const uint64_t *from, unsigned int words);
int page_store_by_call(void *to, const uint64_t from[WORDS], unsigned int number);

/* toucher.c */
void *toucher(void *actor);
bool pause_writers(void); /* false: some of them are inside a fault */
void resume_writers(void);
void check_page(struct arena *a, uint64_t page, const char *when);

/* Actors: discards.c, guards.c, calls.c */
void *discarder(void *actor);
void *guard(void *actor);
void *caller(void *actor);
void *spoiler(void *actor);

/* snapshots.c, dirty.c, watch.c */
void snapshot_once(struct actor *by);
void dirty_once(struct actor *by);
void watch_once(struct actor *by);

/* supply.c: where contents come from */
void supplies_make(struct random *r);
void supplies_free(void);
struct supply *supply_any(struct random *r);
struct hgm_source *supply_source(const struct supply *s);
const char *supply_name(const struct supply *s);
/*
 * Returns the first page of a run of pages that cannot be had, counted over all pages. If there is
 * no such run, it returns UINT64_MAX or any page.
 */
uint64_t supply_odd_page(const struct supply *s, struct random *r);
bool supply_ever_bad(const struct supply *s, uint64_t page);
void supply_misbehave(struct supply *s, struct random *r);
void supplies_calm(void); /* from now on they answer everything */

/* report.c */
void note(struct arena *a, unsigned int who, const char *what, uint64_t page, uint64_t pages,
	  uint64_t value);
void wrong_page(struct arena *a, uint64_t page, uint64_t truth, int word, const uint64_t *in,
		const char *when) __attribute__((noreturn));
void wrong(struct arena *a, uint64_t page, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
void must(int rc, const char *call);

/* hang.c */
void hang_watch(struct actor *const *actors, unsigned int count);
void hang_watch_end(void);

/* seam.c: addresses are not used again while touchers may still use them */
void seam_begin(void);
void seam_release(struct arena *a, const struct ram *had);

#endif
