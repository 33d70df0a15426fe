/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Creates the wp owners: snapshots, dirty tracking and watches, in any order.
 */
#include "chaos.h"

static void guard_once(struct actor *self)
{
	switch (random_below(&self->random, 3)) {
	case 0:
		if (may(ACT_SNAPSHOT))
			snapshot_once(self);
		break;
	case 1:
		if (may(ACT_DIRTY))
			dirty_once(self);
		break;
	default:
		if (may(ACT_WATCH))
			watch_once(self);
	}
}

void *guard(void *actor)
{
	struct actor *self = actor;

	while (!atomic_load(&life.actors_stop)) {
		nap_us((unsigned int)random_below(&self->random, 20000));
		guard_once(self);
	}
	return NULL;
}
