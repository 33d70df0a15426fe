/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/caps.h - what this kernel can do for this process, and why not
 *
 * Each answer was got by doing the thing on a scratch mapping, never from a version number.
 *
 * "hgm" says whether high-granularity mapping of hugetlb memory is proven: 4 KiB of a huge page
 * were mapped and made one mapping again. The reason begins with the stage that decided; "hgm.*"
 * are the stages. hgm-probe(1) prints the table and describes it.
 */
#ifndef HGM_CAPS_H
#define HGM_CAPS_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm_caps;

enum hgm_answer {
	HGM_NO = 0,	  /* the kernel, as it is set up, cannot */
	HGM_YES = 1,	  /* it was done, and worked */
	HGM_DENIED = 2,	  /* this process may not; the reason says what would help */
	HGM_UNPROVEN = 3, /* could not be tried (no huge page free, something else missing) */
};

/**
 * struct hgm_cap - one capability
 * @name:   stable, lower case, parts joined by '.': "shmem.minor.4k", "uffd.exact_address"
 * @answer: enum hgm_answer
 * @value:  a number where the capability has one (free huge pages, feature mask), else 0
 * @reason: in words: what was tried and what came of it
 *
 * The strings live as long as the struct hgm_caps.
 */
struct hgm_cap {
	const char *name;
	uint32_t answer;
	uint32_t reserved;
	uint64_t value;
	const char *reason;
};

/* Also try what takes a huge page from the pool for a moment. */
#define HGM_CAPS_USE_HUGE_PAGES 0x1u

/**
 * hgm_caps_probe - find out what this kernel can do for this process
 * @out:   the new table
 * @flags: HGM_CAPS_USE_HUGE_PAGES or 0
 *
 * Uses scratch mappings and throw-away descriptors and leaves none behind; does not fork. That a
 * capability is missing, or all are, is an answer and no error.
 *
 * Errors: -EINVAL @out is NULL or a flag is unknown; -ENOMEM.
 * Calling thread: any. Blocks for some milliseconds, with HGM_CAPS_USE_HUGE_PAGES up to seconds.
 * Since: 0.1.
 */
HGM_PUBLIC int hgm_caps_probe(struct hgm_caps **out, unsigned int flags);

/**
 * hgm_caps_free - free the table
 * @caps: the table, or NULL
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC void hgm_caps_free(struct hgm_caps *caps);

/**
 * hgm_caps_count - how many capabilities the table has
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC unsigned int hgm_caps_count(const struct hgm_caps *caps);

/**
 * hgm_caps_at - a capability by its place
 * @caps:  the table
 * @index: 0 to hgm_caps_count() - 1
 *
 * Return: the capability, NULL beyond the last.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const struct hgm_cap *hgm_caps_at(const struct hgm_caps *caps, unsigned int index);

/**
 * hgm_caps_find - a capability by its name
 *
 * Return: the capability, NULL if this library knows none of that name.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const struct hgm_cap *hgm_caps_find(const struct hgm_caps *caps, const char *name);

HGM_END_DECLS

#endif /* HGM_CAPS_H */
