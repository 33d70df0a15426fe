/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_UFFD_H
#define HGM_LIB_UFFD_H

#include <stdbool.h>

#include <hgm/uffd.h>

struct hgm_uffd {
	int fd;
	enum hgm_uffd_via via;
	uint64_t supported;
	uint64_t features;
};

enum hgm_verb {
	HGM_VERB_CONTINUE,
	HGM_VERB_COPY,
	HGM_VERB_ZEROPAGE,
	HGM_VERB_POISON,
};

/*
 * Like the public range operations, but stops with -EEXIST at the first piece that exists, and does
 * not wake the threads that wait for it.
 */
int hgm_range_until_exist(struct hgm_uffd *u, struct hgm_range *r, enum hgm_verb verb,
			  const void *src);

/*
 * Is an event pending, or has one been read and the thread that raised it has not run since? The
 * kernel refuses every range ioctl then, including the one used here. Before Linux 5.15, the first
 * of several events to end hides the others.
 */
bool hgm_uffd_changing(const struct hgm_uffd *u);

/*
 * Take over a userfaultfd that another process has made: its descriptor is duplicated, and set to
 * O_NONBLOCK, which the owner's descriptor becomes, too. -EBADF, -EINVAL with text: it is none, or
 * its owner has not called UFFDIO_API yet.
 */
int hgm_uffd_adopt(struct hgm_uffd **out, int fd);

/* The name of a feature bit, or NULL if the bit has no name here. */
const char *hgm_uffd_feature_name(unsigned int bit);

#endif
