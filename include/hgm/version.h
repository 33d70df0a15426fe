/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/version.h - the version of libhgm
 */
#ifndef HGM_VERSION_H
#define HGM_VERSION_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

#define HGM_VERSION_MAJOR 0
#define HGM_VERSION_MINOR 1
#define HGM_VERSION_PATCH 0

/* A version as one number that grows with each release, for #if. */
#define HGM_VERSION_AT(major, minor, patch) (((major) << 16) | ((minor) << 8) | (patch))

/* The version of these headers. */
#define HGM_VERSION_NUMBER HGM_VERSION_AT(HGM_VERSION_MAJOR, HGM_VERSION_MINOR, HGM_VERSION_PATCH)

/*
 * One macro for each header whose functions this release has. If a later release adds a function to
 * a header that already existed, the function's comment says so ("Since"), for a test with
 * HGM_VERSION_NUMBER.
 */
#define HGM_HAVE_CAPS	  1
#define HGM_HAVE_DIRTY	  1
#define HGM_HAVE_ENGINE	  1
#define HGM_HAVE_LOG	  1
#define HGM_HAVE_PEER	  1
#define HGM_HAVE_PROTECT  1
#define HGM_HAVE_REGION	  1
#define HGM_HAVE_SNAPSHOT 1
#define HGM_HAVE_SOURCE	  1
#define HGM_HAVE_STATS	  1
#define HGM_HAVE_UFFD	  1

/**
 * hgm_version - the version of the library that the program runs with
 *
 * It can be newer than HGM_VERSION_NUMBER, the version that the program was built with.
 *
 * Return: the version, in the form of HGM_VERSION_NUMBER. Never fails.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC unsigned int hgm_version(void);

HGM_END_DECLS

#endif /* HGM_VERSION_H */
