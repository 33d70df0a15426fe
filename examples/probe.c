/* SPDX-License-Identifier: 0BSD */
/*
 * What can this kernel do for this process, and why not?
 *
 *	probe			the table
 *	probe --huge-pages	also try what takes a huge page from the pool for a moment
 *	probe NAME...		only these; the exit code is 0 if all of them are "yes"
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <hgm/caps.h>
#include <hgm/error.h>

#define NAME_WIDTH   26
#define ANSWER_WIDTH 10

static const char *const answers[] = {
	[HGM_NO] = "no",
	[HGM_YES] = "yes",
	[HGM_DENIED] = "denied",
	[HGM_UNPROVEN] = "unproven",
};

static unsigned int terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		return size.ws_col;
	return columns && atoi(columns) > 0 ? (unsigned int)atoi(columns) : 100;
}

/* Print @text in a column from @indent to the right edge, breaking lines at spaces. */
static void print_wrapped(const char *text, unsigned int indent, unsigned int width)
{
	unsigned int room = width > indent + 20 ? width - indent : 20;

	while (strlen(text) > room) {
		unsigned int n = room;

		while (n && text[n] != ' ')
			n--;
		if (!n)
			n = (unsigned int)strcspn(text, " ");
		printf("%.*s\n", (int)n, text);
		text += n;
		text += *text == ' ';
		if (!*text)
			return;
		printf("%*s", (int)indent, "");
	}
	printf("%s\n", text);
}

static void print_cap(const struct hgm_cap *cap, unsigned int width)
{
	printf("%-*s%-*s", NAME_WIDTH, cap->name, ANSWER_WIDTH, answers[cap->answer]);
	print_wrapped(cap->reason, NAME_WIDTH + ANSWER_WIDTH, width);
}

int main(int argc, char **argv)
{
	unsigned int width = terminal_width();
	unsigned int flags = 0;
	struct hgm_caps *caps;
	int missing = 0;
	int named = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--huge-pages")) {
			flags |= HGM_CAPS_USE_HUGE_PAGES;
		} else if (argv[i][0] == '-') {
			fprintf(stderr, "usage: %s [--huge-pages] [NAME...]\n", argv[0]);
			return 2;
		}
	}
	if (hgm_caps_probe(&caps, flags)) {
		fprintf(stderr, "%s\n", hgm_errmsg());
		return 2;
	}

	for (int i = 1; i < argc; i++) {
		const struct hgm_cap *cap;

		if (argv[i][0] == '-')
			continue;
		named++;
		cap = hgm_caps_find(caps, argv[i]);
		if (cap)
			print_cap(cap, width);
		else
			fprintf(stderr, "%s: no such capability\n", argv[i]);
		missing += !cap || cap->answer != HGM_YES;
	}
	if (!named) {
		printf("%-*s%-*s%s\n", NAME_WIDTH, "capability", ANSWER_WIDTH, "answer", "reason");
		for (unsigned int i = 0; i < hgm_caps_count(caps); i++)
			print_cap(hgm_caps_at(caps, i), width);
	}
	hgm_caps_free(caps);
	return missing ? 1 : 0;
}
