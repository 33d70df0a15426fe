/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two stacks of slots. Many threads pop the one of free slots, so its head carries a count: a
 * thread that was delayed between reading the head and replacing it must fail if others have taken
 * the slot and given it back meanwhile. The stack of asked slots is only ever taken as a whole, so
 * it needs no count.
 *
 * That the serving thread sleeps is a value of the head of asked slots. So a thread that asks
 * either finds that value and wakes, or has asked before the serving thread could set it, which
 * then does not sleep. As it is one location, no wake-up is lost and no fence is needed.
 */
#include <stddef.h>

#include "ring.h"

#define RING_ASLEEP UINT32_MAX

static uint32_t index_of(const struct ring *ring, const struct ring_slot *slot)
{
	return (uint32_t)(slot - ring->slot) + 1;
}

static struct ring_slot *slot_of(struct ring *ring, uint32_t index)
{
	return index ? &ring->slot[index - 1] : NULL;
}

void hgm_nbd_ring_init(struct ring *ring)
{
	for (uint32_t i = 0; i < RING_SLOTS; i++)
		atomic_init(&ring->slot[i].next, i + 1 < RING_SLOTS ? i + 2 : 0);
	atomic_init(&ring->free, 1);
	atomic_init(&ring->asked, 0);
}

struct ring_slot *hgm_nbd_ring_get(struct ring *ring)
{
	uint64_t head = atomic_load_explicit(&ring->free, memory_order_acquire), after;
	struct ring_slot *slot;

	do {
		slot = slot_of(ring, (uint32_t)head);
		if (!slot)
			return NULL;
		/* Garbage if the slot is taken meanwhile; the exchange then fails. */
		after = ((head >> 32) + 1) << 32 |
			atomic_load_explicit(&slot->next, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
		&ring->free, &head, after, memory_order_acquire, memory_order_acquire));
	return slot;
}

void hgm_nbd_ring_put(struct ring *ring, struct ring_slot *slot)
{
	uint64_t head = atomic_load_explicit(&ring->free, memory_order_relaxed), after;

	do {
		atomic_store_explicit(&slot->next, (uint32_t)head, memory_order_relaxed);
		after = head >> 32 << 32 | index_of(ring, slot);
	} while (!atomic_compare_exchange_weak_explicit(
		&ring->free, &head, after, memory_order_release, memory_order_relaxed));
}

bool hgm_nbd_ring_ask(struct ring *ring, struct ring_slot *slot)
{
	uint32_t head = atomic_load_explicit(&ring->asked, memory_order_relaxed);

	do {
		atomic_store_explicit(&slot->next, head == RING_ASLEEP ? 0 : head,
				      memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(&ring->asked, &head, index_of(ring, slot),
							memory_order_release,
							memory_order_relaxed));
	return head == RING_ASLEEP;
}

bool hgm_nbd_ring_may_sleep(struct ring *ring)
{
	uint32_t none = 0;

	return atomic_compare_exchange_strong_explicit(&ring->asked, &none, RING_ASLEEP,
						       memory_order_relaxed, memory_order_relaxed);
}

struct ring_slot *hgm_nbd_ring_take(struct ring *ring)
{
	uint32_t from = atomic_exchange_explicit(&ring->asked, 0, memory_order_acquire), to = 0;

	if (from == RING_ASLEEP)
		return NULL;
	while (from) { /* turn the stack round */
		struct ring_slot *slot = slot_of(ring, from);
		uint32_t next = atomic_load_explicit(&slot->next, memory_order_relaxed);

		atomic_store_explicit(&slot->next, to, memory_order_relaxed);
		to = from;
		from = next;
	}
	return slot_of(ring, to);
}

struct ring_slot *hgm_nbd_ring_next(struct ring *ring, const struct ring_slot *slot)
{
	return slot_of(ring, atomic_load_explicit(&slot->next, memory_order_relaxed));
}
