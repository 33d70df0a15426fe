/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef HGM_LIB_CGROUP_H
#define HGM_LIB_CGROUP_H

#include <stdint.h>

/*
 * How many bytes the process may still allocate by the limits of its memory cgroups, of all levels,
 * v1 and v2; @swap_bytes: so much can be swapped out. UINT64_MAX: no limit, or none to be read.
 */
uint64_t hgm_cgroup_room(uint64_t swap_bytes);

#endif
