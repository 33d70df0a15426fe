/* SPDX-License-Identifier: 0BSD */
/* The number decides, the text is for the log. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <hgm/error.h>
#include <hgm/source.h>

int main(void)
{
	struct hgm_source *source;
	int rc = hgm_source_file(&source, "/no/such/file");

	if (!rc) {
		hgm_source_destroy(source);
		return 1;
	}
	printf("%s\n", hgm_errmsg());
	printf("in short: %s\n", strerror(-rc));
	return rc != -ENOENT;
}
