/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/hgm.h - all of libhgm's API (libhgm-nbd has hgm/nbd.h)
 */
#ifndef HGM_HGM_H
#define HGM_HGM_H

#include <hgm/caps.h>
#include <hgm/dirty.h>
#include <hgm/engine.h>
#include <hgm/error.h>
#include <hgm/log.h>
#include <hgm/peer.h>
#include <hgm/protect.h>
#include <hgm/region.h>
#include <hgm/snapshot.h>
#include <hgm/source.h>
#include <hgm/stats.h>
#include <hgm/uapi.h>
#include <hgm/uffd.h>
#include <hgm/version.h>

#endif /* HGM_HGM_H */
