/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm_version().
 */
#include <hgm/version.h>

unsigned int hgm_version(void)
{
	return HGM_VERSION_NUMBER;
}
