/* SPDX-License-Identifier: 0BSD */
/* What is missing here, and why. */
#include <err.h>
#include <stdio.h>

#include <hgm/hgm.h>

int main(void)
{
	const struct hgm_cap *cap;
	struct hgm_caps *caps;

	if (hgm_caps_probe(&caps, 0))
		errx(1, "%s", hgm_errmsg());

	for (unsigned int i = 0; i < hgm_caps_count(caps); i++) {
		cap = hgm_caps_at(caps, i);
		if (cap->answer != HGM_YES)
			printf("%s: %s\n", cap->name, cap->reason);
	}

	cap = hgm_caps_find(caps, "shmem.minor.4k");
	if (cap && cap->answer == HGM_YES)
		printf("shmem can be served page by page\n");
	hgm_caps_free(caps);
	return 0;
}
