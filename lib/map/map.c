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

#include "leaf.h"
#include "util/bits.h"

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
	hgm_map_retire(leaf);
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
