/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault threads: see fault.c.
 */
#ifndef HGM_LIB_FAULT_H
#define HGM_LIB_FAULT_H

#include <pthread.h>
#include <stdbool.h>

#include "util/line.h"

struct hgm;
struct hgm_space;

struct hgm_fault_thread {
	_Alignas(64) struct hgm *h;
	struct hgm_space *space;
	unsigned int stripe;
	pthread_t thread;
	bool started;
	int fdinfo; /* of its userfaultfd; negative: not available */
};

HGM_WHOLE_LINES(struct hgm_fault_thread);

#endif
