/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-state map.
 *
 * Shape
 *
 *	words[]     one per leaf (2 MiB): EMPTY, FULL, or a pointer to a leaf
 *	leaf        bit planes of 512 bits, one cache line each: claimed, discarded, present; a
 *		    count
 *	poisoned[]  a bit per page
 *
 * Idle memory takes 8 bytes per 2 MiB, of which the kernel allocates only what was touched. A leaf
 * takes 256 bytes, half a byte per page, and exists only while its 2 MiB are neither untouched nor
 * full. The kernel also allocates only those pages of poisoned[] in which a bit was ever set.
 *
 * States of a page, and the threads that may change them
 *
 *	absent     all bits 0                    -> claimed, by any thread
 *	claimed    claimed                       -> present, poisoned, absent, by its owner only;
 *						 -> discarded, by any thread
 *	discarded  discarded, claimed or not     -> present, by its owner only
 *	present    claimed, present              forever
 *	poisoned   claimed, poisoned             -> claimed, by the thread that clears the
 *						    poisoned bit
 *
 * A page is discarded when the guest's owner gives it back before it has arrived. From then on its
 * contents are zeroes, and it is never fetched. It becomes present as soon as no thread can write
 * other contents to it. If the page has no owner, this is the case at once: the thread that
 * discards it also claims it and makes it present. If the page has an owner, an answer of the
 * source may be on its way. The owner finds the discarded bit, drops the answer, and makes the page
 * present. A page that was present before it was discarded stays present. The next fault on it
 * shows that its memory was dropped.
 *
 * States of a leaf's word: EMPTY -> leaf -> FULL, or EMPTY -> FULL if all of it is discarded. A
 * word never goes back. FULL says that all 512 pages are present. It says nothing about the page
 * tables: a full block can fault again after a split, reclaim, migration or discard. It is then
 * mapped again, but never fetched again.
 *
 * Pages at the start of the first leaf may belong to nobody (hgm_map_leave_out()). They are claimed
 * for good, and count in their leaf as present, but have no present bit. So this leaf is never
 * replaced by FULL, which would say that they are present.
 *
 * Guarantees, by name
 *
 * claim-once: of all threads that claim a page, exactly one gets it until it is released. The claim
 *	is a fetch_or, and only the thread that turned the bit on owns the page.
 * discarded-wins: a page that is discarded before its owner publishes it never keeps the contents
 *	that the owner brings. The discarded bit is set (A) before the memory is dropped (B), which
 *	is a system call. The owner writes the contents (C) and then loads the bit (D). If D does
 *	not see A, then C came before B, and B drops what C wrote. If D sees A, the owner drops it.
 *	A page that its owner releases keeps the bit, and the next thread that claims it looks at
 *	the bit before it asks the source.
 * contents-first: a thread that sees a page present sees its contents. The owner writes them, then
 *	sets the bit with release; readers load it with acquire.
 * full-last: a thread that sees FULL sees the contents of all 512 pages. The count is raised with
 *	acq_rel after each present bit. So the thread that raises it to 512 has everything before
 *	it, and stores FULL with release.
 * full-once: exactly one caller is told that a leaf became full: the one that raises the count to
 *	512.
 * leaf-life: a leaf that is found in words[] inside a read-side section stays readable to the end
 *	of that section. It is cleared and used again only after a grace period. A claim on a leaf
 *	that has been replaced by FULL finds all bits taken, so nothing can be owned through a stale
 *	leaf.
 * no-lost-waiter: a thread that finds a page claimed may forget about the page's waiter. The owner
 *	will make the page present and wake, or poison and wake, or release and wake. (The map only
 *	ensures that a released page can be claimed at once. Waking is the owner's duty.)
 *
 * Progress: look-ups are wait-free. Claims and summaries are lock-free: they retry only when the
 * compare-and-swap of another thread succeeded. Nothing allocates: leaves come from an arena whose
 * address space is reserved when the map is created, and used leaves come back through a lock-free
 * stack. A pop is safe from ABA because it runs inside a read-side section, while a leaf is pushed
 * only after a grace period (leaf-life).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernel/sys.h"
#include "map.h"
#include "util/bits.h"
#include "util/line.h"
#include "util/rcu.h"

#define WORD_EMPTY ((uintptr_t)0)
#define WORD_FULL  ((uintptr_t)1)

/* Leaves beyond two per word. Each word takes one leaf, once, except for lost races. */
#define SPARE_LEAVES 1024

struct leaf {
	_Alignas(64) struct rcu_head rcu;
	struct hgm_map *map;
	struct leaf *next_free;
	_Atomic uint32_t present_count;
	_Alignas(64) _Atomic uint64_t claimed[HGM_LEAF_WORDS];
	_Atomic uint64_t discarded[HGM_LEAF_WORDS];
	_Atomic uint64_t present[HGM_LEAF_WORDS];
};

_Static_assert(sizeof(struct leaf) == 256, "half a byte per page");
HGM_WHOLE_LINES(struct leaf);
HGM_OWN_LINES(struct leaf, claimed, discarded);
HGM_OWN_LINES(struct leaf, discarded, present);

struct hgm_map {
	uint64_t pages;
	uint64_t left_out; /* the first ones of these */
	uint64_t leaves;
	_Atomic uintptr_t *words;
	_Atomic uint64_t *poisoned;
	struct leaf *arena;
	uint64_t arena_leaves;
	_Alignas(64) _Atomic uint64_t arena_next; /* the first leaf that was never used */
	_Atomic(struct leaf *) free_leaves;
	_Atomic uint64_t deferred; /* leaves that wait for a grace period */
	_Alignas(64) _Atomic uint64_t present_pages;
	_Atomic uint64_t poisoned_pages;
};

HGM_WHOLE_LINES(struct hgm_map);
HGM_OWN_LINES(struct hgm_map, arena_next, present_pages);

static uint64_t words_bytes(const struct hgm_map *map)
{
	return map->leaves * sizeof(map->words[0]);
}

static uint64_t poisoned_bytes(const struct hgm_map *map)
{
	return map->leaves * HGM_LEAF_WORDS * sizeof(map->poisoned[0]);
}

static uint64_t arena_bytes(const struct hgm_map *map)
{
	return map->arena_leaves * sizeof(struct leaf);
}

static int reserve(void **out, uint64_t bytes)
{
	return hgm_sys->mmap(out, NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | HGM_MAP_UNLOCKED, -1, 0);
}

int hgm_map_create(struct hgm_map **out, uint64_t pages)
{
	struct hgm_map *map = aligned_alloc(64, sizeof(*map));
	void *mem;
	int rc;

	if (!map)
		return -ENOMEM;
	memset(map, 0, sizeof(*map));
	map->pages = pages;
	map->leaves = (pages + HGM_LEAF_PAGES - 1) / HGM_LEAF_PAGES;
	map->arena_leaves = 2 * map->leaves + SPARE_LEAVES;
	rc = reserve(&mem, words_bytes(map));
	if (rc)
		goto no_words;
	map->words = mem;
	rc = reserve(&mem, arena_bytes(map));
	if (rc)
		goto no_arena;
	map->arena = mem;
	rc = reserve(&mem, poisoned_bytes(map));
	if (rc)
		goto no_poisoned;
	map->poisoned = mem;
	*out = map;
	return 0;
no_poisoned:
	hgm_sys->munmap(map->arena, arena_bytes(map));
no_arena:
	hgm_sys->munmap(map->words, words_bytes(map));
no_words:
	free(map);
	return rc;
}

void hgm_map_destroy(struct hgm_map *map)
{
	if (!map)
		return;
	/*
	 * Wait until all replaced leaves are back in the arena. reclaim() accesses this count last.
	 */
	while (atomic_load_explicit(&map->deferred, memory_order_acquire))
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	hgm_sys->munmap(map->arena, arena_bytes(map));
	hgm_sys->munmap(map->poisoned, poisoned_bytes(map));
	hgm_sys->munmap(map->words, words_bytes(map));
	free(map);
}

uint64_t hgm_map_pages(const struct hgm_map *map)
{
	return map->pages;
}

/* Inside a read-side section. */
static struct leaf *pop_free(struct hgm_map *map)
{
	struct leaf *leaf = atomic_load_explicit(&map->free_leaves, memory_order_acquire);

	while (leaf &&
	       !atomic_compare_exchange_weak_explicit(&map->free_leaves, &leaf, leaf->next_free,
						      memory_order_acquire, memory_order_acquire))
		;
	return leaf;
}

static void reclaim(struct rcu_head *head)
{
	struct leaf *leaf = caa_container_of(head, struct leaf, rcu);
	struct hgm_map *map;
	struct leaf *first;

	hgm_rcu_tsan_acquire();
	map = leaf->map;
	atomic_store_explicit(&leaf->present_count, 0, memory_order_relaxed);
	for (int i = 0; i < HGM_LEAF_WORDS; i++) {
		atomic_store_explicit(&leaf->claimed[i], 0, memory_order_relaxed);
		atomic_store_explicit(&leaf->discarded[i], 0, memory_order_relaxed);
		atomic_store_explicit(&leaf->present[i], 0, memory_order_relaxed);
	}
	first = atomic_load_explicit(&map->free_leaves, memory_order_relaxed);
	do
		leaf->next_free = first;
	while (!atomic_compare_exchange_weak_explicit(&map->free_leaves, &first, leaf,
						      memory_order_release, memory_order_relaxed));
	atomic_fetch_sub_explicit(&map->deferred, 1, memory_order_release);
}

static void retire(struct leaf *leaf)
{
	atomic_fetch_add_explicit(&leaf->map->deferred, 1, memory_order_relaxed);
	hgm_rcu_defer(&leaf->rcu, reclaim);
}

static struct leaf *new_leaf(struct hgm_map *map, uint64_t index)
{
	struct leaf *leaf = pop_free(map);
	uint64_t tail = map->pages - index * HGM_LEAF_PAGES;

	if (!leaf) {
		uint64_t n = atomic_fetch_add_explicit(&map->arena_next, 1, memory_order_relaxed);

		if (n >= map->arena_leaves) {
			atomic_fetch_sub_explicit(&map->arena_next, 1, memory_order_relaxed);
			return NULL;
		}
		leaf = &map->arena[n];
		leaf->map = map;
	}
	/* Pages beyond the region's end are never fetched. */
	for (uint64_t page = tail; page < HGM_LEAF_PAGES; page++) {
		leaf->claimed[page / 64] |= UINT64_C(1) << page % 64;
		leaf->present[page / 64] |= UINT64_C(1) << page % 64;
		leaf->present_count++;
	}
	return leaf;
}

/*
 * Return the leaf of a word, and make one if there is none. NULL: the word is FULL, or there is no
 * memory. Inside a read-side section.
 */
static struct leaf *get_leaf(struct hgm_map *map, uint64_t index, bool *full)
{
	uintptr_t word = atomic_load_explicit(&map->words[index], memory_order_acquire);
	struct leaf *leaf;

	*full = word == WORD_FULL;
	if (word != WORD_EMPTY)
		return *full ? NULL : (struct leaf *)word;
	leaf = new_leaf(map, index);
	if (!leaf)
		return NULL;
	if (atomic_compare_exchange_strong_explicit(&map->words[index], &word, (uintptr_t)leaf,
						    memory_order_acq_rel, memory_order_acquire))
		return leaf;
	/*
	 * Another thread has installed a leaf first. This leaf must go through a grace period,
	 * because another thread that pops may be reading it.
	 */
	retire(leaf);
	*full = word == WORD_FULL;
	return *full ? NULL : (struct leaf *)word;
}

void hgm_map_leave_out(struct hgm_map *map, uint64_t pages)
{
	struct leaf *leaf;
	bool full;

	hgm_rcu_read_lock();
	leaf = get_leaf(map, 0, &full);
	for (uint64_t w = 0; w * 64 < pages; w++)
		atomic_fetch_or_explicit(&leaf->claimed[w], hgm_bits_low(pages - w * 64),
					 memory_order_relaxed);
	atomic_fetch_add_explicit(&leaf->present_count, (uint32_t)pages, memory_order_relaxed);
	hgm_rcu_read_unlock();
	map->left_out = pages;
}

int hgm_map_claim(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine)
{
	struct leaf *leaf;
	bool full;
	int rc = 0;

	*mine = 0;
	hgm_rcu_read_lock();
	leaf = get_leaf(map, word / HGM_LEAF_WORDS, &full);
	if (leaf) /* claim-once */
		*mine = want & ~atomic_fetch_or_explicit(&leaf->claimed[word % HGM_LEAF_WORDS],
							 want, memory_order_acq_rel);
	else if (!full)
		rc = -ENOMEM;
	hgm_rcu_read_unlock();
	return rc;
}

/* Pages beyond the region's end are not counted. */
static uint64_t leaf_pages(const struct hgm_map *map, uint64_t index)
{
	uint64_t tail = map->pages - index * HGM_LEAF_PAGES;

	return tail < HGM_LEAF_PAGES ? tail : HGM_LEAF_PAGES;
}

/* Take those poisoned pages of a word that are in @want. They become the caller's claim. */
static uint64_t take_poisoned(struct hgm_map *map, uint64_t word, uint64_t want)
{
	uint64_t taken;

	if (!(atomic_load_explicit(&map->poisoned[word], memory_order_seq_cst) & want))
		return 0;
	taken = want & atomic_fetch_and_explicit(&map->poisoned[word], ~want, memory_order_acq_rel);
	atomic_fetch_sub_explicit(&map->poisoned_pages, (uint64_t)__builtin_popcountll(taken),
				  memory_order_relaxed);
	return taken;
}

int hgm_map_discard(struct hgm_map *map, uint64_t word, uint64_t want, uint64_t *mine,
		    uint64_t *poisoned, uint64_t *in_flight)
{
	unsigned int w = word % HGM_LEAF_WORDS;
	struct leaf *leaf;
	bool full;
	int rc = 0;

	*mine = *poisoned = *in_flight = 0;
	hgm_rcu_read_lock();
	leaf = get_leaf(map, word / HGM_LEAF_WORDS, &full);
	if (leaf) {
		/*
		 * discarded-wins: set the bit first. A thread that claims the page from here on
		 * finds it, and so does an owner that releases the page.
		 */
		atomic_fetch_or_explicit(&leaf->discarded[w], want, memory_order_seq_cst);
		*mine = want &
			~atomic_fetch_or_explicit(&leaf->claimed[w], want, memory_order_seq_cst);
		*poisoned = take_poisoned(map, word, want & ~*mine);
		*mine |= *poisoned;
		*in_flight = want & ~*mine &
			     ~atomic_load_explicit(&leaf->present[w], memory_order_acquire);
	} else if (!full) {
		rc = -ENOMEM;
	}
	hgm_rcu_read_unlock();
	return rc;
}

void hgm_map_mark_discarded(struct hgm_map *map, uint64_t word, uint64_t want)
{
	uintptr_t leaf;

	hgm_rcu_read_lock();
	leaf = atomic_load_explicit(&map->words[word / HGM_LEAF_WORDS], memory_order_acquire);
	if (leaf != WORD_EMPTY && leaf != WORD_FULL)
		atomic_fetch_or_explicit(&((struct leaf *)leaf)->discarded[word % HGM_LEAF_WORDS],
					 want, memory_order_seq_cst);
	hgm_rcu_read_unlock();
}

uint64_t hgm_map_discard_leaf(struct hgm_map *map, uint64_t leaf)
{
	uint64_t pages = leaf_pages(map, leaf);
	uintptr_t word = WORD_EMPTY;

	if (!atomic_compare_exchange_strong_explicit(&map->words[leaf], &word, WORD_FULL,
						     memory_order_acq_rel, memory_order_relaxed))
		return 0;
	atomic_fetch_add_explicit(&map->present_pages, pages, memory_order_relaxed);
	return pages;
}

/*
 * The leaf that holds pages claimed by the caller. It exists, and it cannot become full or be
 * reclaimed while one of them is not present, so no read-side section is needed (leaf-life).
 */
static struct leaf *claimed_leaf(struct hgm_map *map, uint64_t page)
{
	return (struct leaf *)atomic_load_explicit(&map->words[page / HGM_LEAF_PAGES],
						   memory_order_acquire);
}

void hgm_map_release(struct hgm_map *map, uint64_t first_page, uint64_t pages)
{
	struct leaf *leaf;

	for (uint64_t w = first_page / 64; w <= (first_page + pages - 1) / 64; w++) {
		leaf = claimed_leaf(map, w * 64);
		atomic_fetch_and_explicit(&leaf->claimed[w % HGM_LEAF_WORDS],
					  ~hgm_bits_of_range(first_page, pages, w),
					  memory_order_release);
	}
}

bool hgm_map_set_present(struct hgm_map *map, uint64_t first_page, uint64_t pages)
{
	struct leaf *leaf = claimed_leaf(map, first_page);
	uint32_t before;

	for (uint64_t w = first_page / 64; w <= (first_page + pages - 1) / 64; w++)
		atomic_fetch_or_explicit(&leaf->present[w % HGM_LEAF_WORDS],
					 hgm_bits_of_range(first_page, pages, w),
					 memory_order_release); /* contents-first */
	/*
	 * The leaf belongs to the caller until the addition. Afterwards another thread may store
	 * FULL and retire it.
	 */
	before = atomic_fetch_add_explicit(&leaf->present_count, (uint32_t)pages,
					   memory_order_acq_rel);
	atomic_fetch_add_explicit(&map->present_pages, pages, memory_order_relaxed);
	if (before + pages != HGM_LEAF_PAGES)
		return false;
	/* FULL would say that the pages that were left out are present, too. */
	if (first_page < HGM_LEAF_PAGES && map->left_out)
		return true;
	/* full-last, full-once */
	atomic_store_explicit(&map->words[first_page / HGM_LEAF_PAGES], WORD_FULL,
			      memory_order_release);
	retire(leaf);
	return true;
}

void hgm_map_set_poisoned(struct hgm_map *map, uint64_t first_page, uint64_t pages)
{
	/* Count them before another thread can take them. */
	atomic_fetch_add_explicit(&map->poisoned_pages, pages, memory_order_relaxed);
	for (uint64_t w = first_page / 64; w <= (first_page + pages - 1) / 64; w++)
		atomic_fetch_or_explicit(&map->poisoned[w], hgm_bits_of_range(first_page, pages, w),
					 memory_order_seq_cst);
}

uint64_t hgm_map_take_poisoned(struct hgm_map *map, uint64_t word)
{
	return take_poisoned(map, word, ~UINT64_C(0));
}

enum hgm_page_state hgm_map_state(const struct hgm_map *map, uint64_t page)
{
	enum hgm_page_state state = HGM_PAGE_ABSENT;
	unsigned int w = page / 64 % HGM_LEAF_WORDS;
	uint64_t bit = UINT64_C(1) << page % 64;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[page / HGM_LEAF_PAGES], memory_order_acquire);
	if (word == WORD_FULL) {
		state = HGM_PAGE_PRESENT;
	} else if (word != WORD_EMPTY) {
		struct leaf *leaf = (struct leaf *)word;

		if (atomic_load_explicit(&leaf->present[w], memory_order_acquire) & bit)
			state = HGM_PAGE_PRESENT;
		else if (atomic_load_explicit(&map->poisoned[page / 64], memory_order_acquire) &
			 bit)
			state = HGM_PAGE_POISONED;
		else if (atomic_load_explicit(&leaf->discarded[w], memory_order_acquire) & bit)
			state = HGM_PAGE_DISCARDED;
		else if (atomic_load_explicit(&leaf->claimed[w], memory_order_acquire) & bit)
			state = HGM_PAGE_CLAIMED;
	}
	hgm_rcu_read_unlock();
	return state;
}

uint64_t hgm_map_present_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = 0;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word == WORD_FULL)
		bits = ~UINT64_C(0);
	else if (word != WORD_EMPTY)
		bits = atomic_load_explicit(&((struct leaf *)word)->present[w % HGM_LEAF_WORDS],
					    memory_order_acquire);
	hgm_rcu_read_unlock();
	return bits;
}

uint64_t hgm_map_discarded_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = 0;
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word != WORD_EMPTY && word != WORD_FULL)
		bits = atomic_load_explicit(&((struct leaf *)word)->discarded[w % HGM_LEAF_WORDS],
					    memory_order_seq_cst);
	hgm_rcu_read_unlock();
	return bits;
}

uint64_t hgm_map_absent_word(const struct hgm_map *map, uint64_t w)
{
	uint64_t bits = ~UINT64_C(0);
	uintptr_t word;

	hgm_rcu_read_lock();
	word = atomic_load_explicit(&map->words[w / HGM_LEAF_WORDS], memory_order_acquire);
	if (word == WORD_FULL)
		bits = 0;
	else if (word != WORD_EMPTY)
		bits = ~atomic_load_explicit(&((struct leaf *)word)->claimed[w % HGM_LEAF_WORDS],
					     memory_order_acquire);
	hgm_rcu_read_unlock();
	return bits;
}

bool hgm_map_leaf_full(const struct hgm_map *map, uint64_t leaf)
{
	return atomic_load_explicit(&map->words[leaf], memory_order_acquire) == WORD_FULL;
}

uint64_t hgm_map_present_pages(const struct hgm_map *map)
{
	return atomic_load_explicit(&map->present_pages, memory_order_relaxed);
}

uint64_t hgm_map_poisoned_pages(const struct hgm_map *map)
{
	return atomic_load_explicit(&map->poisoned_pages, memory_order_relaxed);
}
