/* SPDX-License-Identifier: 0BSD */
/* Does the library have what the program was built for? */
#include <stdio.h>

#include <hgm/version.h>

int main(void)
{
	unsigned int have = hgm_version();

	printf("built for libhgm %d.%d.%d, runs with %u.%u.%u\n",
	       HGM_VERSION_MAJOR, HGM_VERSION_MINOR, HGM_VERSION_PATCH,
	       have >> 16, have >> 8 & 0xff, have & 0xff);
	return have < HGM_VERSION_NUMBER;
}
