/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the installing modules keep of a region.
 */
#include <errno.h>
#include <stdlib.h>

#include "installs.h"
#include "kinds.h"
#include "region/hgm.h"
#include "resolve.h"
#include "util/bits.h"

int hgm_install_make(struct hgm_region *r)
{
	uint64_t words = hgm_bits_words(r->blocks);
	struct hgm_install *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	hgm_suspects_init(&in->suspects);
	/*
	 * One more page in the same call costs a hundredth of a fault. So a fault maps an aligned
	 * fault-around window, as the kernel does for page cache that is not registered
	 * (fault_around_bytes, 64 KiB). The smallest window has that size. The widest is a word of
	 * the map: its 64 pages are mapped in 7 us, during which other threads wait.
	 */
	hgm_fault_around_init(&in->around, 16, 2);
	in->kind = hgm_kind_of(r);
	r->install = in;
	in->block_gone = calloc(words, sizeof(in->block_gone[0]));
	in->block_poisoned = calloc(words, sizeof(in->block_poisoned[0]));
	return in->block_gone && in->block_poisoned ? 0 : -ENOMEM;
}

void hgm_install_free(struct hgm_region *r)
{
	struct hgm_install *in = r->install;

	if (!in)
		return;
	hgm_wp_free(r);
	hgm_suspects_destroy(&in->suspects);
	free(in->block_gone);
	free(in->block_poisoned);
	free(in);
	r->install = NULL;
}
