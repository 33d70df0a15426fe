/* SPDX-License-Identifier: 0BSD */
/*
 * A progress bar: "#" is huge, "=" is present, "." is still to come
 */
#include <stdio.h>

#include "progress.h"

#define WIDTH 40

/* \r goes to the start of the line, ESC [ K clears the rest of the line. */
#define LINE "\r\033[K"

void progress_show(const char *name, const struct hgm_progress *p)
{
	uint64_t total = p->total_bytes ? p->total_bytes : 1;
	unsigned int present = p->present_bytes * WIDTH / total;
	unsigned int huge = p->huge_bytes * WIDTH / total, i;

	printf(LINE "%-16s [", name);
	for (i = 0; i < WIDTH; i++)
		putchar(i < present && i < huge ? '#' : i < present ? '=' : '.');
	printf("] %3u %% present, %3u %% huge", (unsigned int)(p->present_bytes * 100 / total),
	       (unsigned int)(p->huge_bytes * 100 / total));
	if (p->remaining_us && p->remaining_us != UINT64_MAX)
		printf(", %.1f s left", (double)p->remaining_us / 1e6);
	fflush(stdout);
}

void progress_note(const char *name, const char *note)
{
	printf(LINE "%-16s %s ...", name, note);
	fflush(stdout);
}

void progress_clear(void)
{
	printf(LINE);
	fflush(stdout);
}
