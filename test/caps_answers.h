/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking the capability table.
 */
#ifndef HGM_TEST_CAPS_ANSWERS_H
#define HGM_TEST_CAPS_ANSWERS_H

#include <hgm/caps.h>

#include "test.h"

static inline struct hgm_caps *probe(unsigned int flags)
{
	struct hgm_caps *caps = NULL;

	assert_int_equal(hgm_caps_probe(&caps, flags), 0);
	return caps;
}

static inline uint32_t answer(const struct hgm_caps *caps, const char *name)
{
	const struct hgm_cap *cap = hgm_caps_find(caps, name);

	assert_non_null(cap);
	return cap->answer;
}

#endif
