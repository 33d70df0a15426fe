/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/version.h - which libhgm this is
 */
#ifndef HGM_VERSION_H
#define HGM_VERSION_H

#include <hgm/base.h>

HGM_BEGIN_DECLS

#define HGM_VERSION_MAJOR 0
#define HGM_VERSION_MINOR 1
#define HGM_VERSION_PATCH 0

/* The version as one number that grows with each release: 0x00MMmmpp. */
#define HGM_VERSION_NUMBER \
	((HGM_VERSION_MAJOR << 16) | (HGM_VERSION_MINOR << 8) | HGM_VERSION_PATCH)

/**
 * hgm_version - the version of the library that the program runs with
 *
 * It can be newer than HGM_VERSION_NUMBER, which is the version that the program was built with.
 *
 * Return: the version as HGM_VERSION_NUMBER. Never fails.
 * Calling thread: any. Does not block. Since: 0.1.
 */
HGM_PUBLIC unsigned int hgm_version(void);

HGM_END_DECLS

#endif /* HGM_VERSION_H */
