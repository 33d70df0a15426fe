/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A user's program, compiled as C and as C++ against the installed library.
 */
#include <stdio.h>

#include <hgm/hgm.h>

int main(void)
{
	const struct hgm_cap *cap;
	struct hgm_caps *caps;

	if (hgm_version() != HGM_VERSION_NUMBER) {
		printf("headers and library differ in version\n");
		return 1;
	}
	if (hgm_caps_probe(&caps, 0xff) >= 0 || !hgm_errmsg()[0]) {
		printf("unknown flags were taken\n");
		return 1;
	}
	if (hgm_caps_probe(&caps, 0)) {
		printf("%s\n", hgm_errmsg());
		return 1;
	}
	cap = hgm_caps_find(caps, "uffd.features");
	printf("%s: %s\n", cap->name, cap->reason);
	hgm_caps_free(caps);
	return 0;
}
