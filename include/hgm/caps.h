/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/caps.h - what this kernel can do for this process, and why not
 *
 * Each answer comes from a test on a scratch mapping, never from a version number.
 *
 * "hgm" says whether high-granularity mapping of hugetlb memory is proven: 4 KiB of a huge page
 * were mapped, and the page was made one mapping again. Its reason begins with the stage that
 * decided the answer; the stages are "hgm.*". hgm-probe(1) prints the table and describes it.
 */
#ifndef HGM_CAPS_H
#define HGM_CAPS_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

struct hgm_caps;

enum hgm_answer {
	HGM_NO = 0,	  /* the kernel, as it is configured, cannot do it */
	HGM_YES = 1,	  /* it was tried, and worked */
	HGM_DENIED = 2,	  /* this process is not permitted to; the reason says what would help */
	HGM_UNPROVEN = 3, /* could not be tried (no huge page free, something else missing) */
};

/**
 * struct hgm_cap - one capability
 * @name:   stable, lower case, parts joined by dots: "shmem.minor.4k", "uffd.exact_address"
 * @answer: enum hgm_answer
 * @value:  a number if the capability has one (free huge pages, feature mask), otherwise 0
 * @reason: a text that says what was tried, and what the result was
 *
 * The strings are valid as long as the struct hgm_caps.
 */
struct hgm_cap {
	const char *name;
	uint32_t answer;
	uint32_t reserved;
	uint64_t value;
	const char *reason;
};

/* Also run the tests that take a huge page from the pool for a moment. */
#define HGM_CAPS_USE_HUGE_PAGES 0x1u

/**
 * hgm_caps_probe - test what this kernel can do for this process
 * @out:   the new table
 * @flags: HGM_CAPS_USE_HUGE_PAGES or 0
 *
 * Uses scratch mappings and temporary descriptors, leaves nothing behind, and does not fork. If a
 * capability is missing, or if all are, that is an answer and not an error.
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
 * hgm_caps_count - number of capabilities in the table
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC unsigned int hgm_caps_count(const struct hgm_caps *caps);

/**
 * hgm_caps_at - the capability with a given number
 * @caps:  the table
 * @index: 0 to hgm_caps_count() - 1
 *
 * Return: the capability, or NULL beyond the last.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const struct hgm_cap *hgm_caps_at(const struct hgm_caps *caps, unsigned int index);

/**
 * hgm_caps_find - the capability with a given name
 *
 * Return: the capability, or NULL if this library knows no capability of that name.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC const struct hgm_cap *hgm_caps_find(const struct hgm_caps *caps, const char *name);

HGM_END_DECLS

#endif /* HGM_CAPS_H */
