/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the installing modules know of a region. Only they see it.
 */
#ifndef HGM_LIB_INSTALLS_H
#define HGM_LIB_INSTALLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "around.h"
#include "guard.h"
#include "suspects.h"
#include "util/section.h"

struct hgm_install {
	struct hgm_around around; /* faults on pages that are present */
	_Atomic bool starved;	  /* no memory for contents that arrived, and this was reported */

	/* Discards */
	_Atomic uint64_t *block_gone; /* bitmap, for whole blocks: see discard.c */
	struct hgm_suspects suspects;

	/* Poison */
	_Atomic bool has_poison;	  /* has had some at some time */
	_Atomic uint64_t *block_poisoned; /* bitmap, for whole blocks */
	_Atomic uint64_t refused_pages;	  /* arrived, but poison: the kernel refused to map them */
	struct hgm_section giving_up;	  /* threads that poison pages before the map says so */

	/* Write-protection: guard.c */
	_Atomic(struct hgm_guard *) guard;
	_Atomic(void *) guard_user; /* the guard's data for this region */
	struct hgm_section section; /* threads that map or collapse as the guard says */
	_Atomic bool guard_all;	    /* install everything protected */
	_Atomic uint64_t *guarded;  /* bitmap of pages; these three come with the first guard */
	_Atomic uint64_t *held;	    /* bitmap of blocks that must not be collapsed */
	_Atomic uint64_t holds;	    /* how often blocks were added to it */
	_Atomic(_Atomic uint64_t *) wp_registered; /* bitmap of blocks */
};

#endif
