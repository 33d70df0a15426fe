/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the installing modules know of a region. Only they see it.
 */
#ifndef HGM_LIB_INSTALLS_H
#define HGM_LIB_INSTALLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fault_around.h"
#include "wp.h"
#include "suspects.h"
#include "util/srcu.h"

struct hgm_kind;

struct hgm_install {
	const struct hgm_kind *kind;
	struct hgm_fault_around around; /* faults on pages that are present */
	_Atomic bool starved; /* no memory for contents that arrived, and this was reported */

	/* Discards */
	_Atomic uint64_t *block_gone; /* bitmap, for whole blocks: see discard.c */
	struct hgm_suspects suspects;
	_Atomic uint64_t pinned_until_ns; /* until then, dropping again is most likely in vain */

	/* Poison */
	_Atomic bool has_poison;	  /* has had some at some time */
	_Atomic uint64_t *block_poisoned; /* bitmap, for whole blocks */
	_Atomic uint64_t refused_pages;	  /* arrived, but poison: the kernel refused to map them */
	struct hgm_srcu giving_up;	  /* threads that poison pages before the map says so */

	/* Write-protection: wp.c */
	_Atomic(struct hgm_wp *) wp;
	_Atomic(void *) wp_user;    /* the wp owner's data for this region */
	struct hgm_srcu wp_srcu;    /* threads that map or collapse as the wp bits say */
	_Atomic bool wp_all;	    /* install everything write-protected */
	_Atomic uint64_t *wp_pages; /* wp bits; these three bitmaps come with the first wp owner */
	_Atomic uint64_t *wp_held;  /* bitmap of blocks that are held back */
	_Atomic uint64_t wp_holds;  /* how often hgm_wp_hold() was called */
	_Atomic(_Atomic uint64_t *) wp_registered; /* bitmap of blocks */
};

#endif
