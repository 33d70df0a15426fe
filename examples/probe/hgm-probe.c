/* SPDX-License-Identifier: 0BSD */
/*
 * Show what this kernel can do for this process, and why it cannot do more. See hgm-probe(1).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <hgm/error.h>
#include <hgm/version.h>

#include "probe.h"

#define NAME_WIDTH   26
#define ANSWER_WIDTH 10
#define INDENT	     (NAME_WIDTH + ANSWER_WIDTH)

static unsigned int width;

static unsigned int terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		return size.ws_col;
	return columns && atoi(columns) > 0 ? (unsigned int)atoi(columns) : 100;
}

/* Print @text in a column from @indent to the right edge, breaking lines at spaces. */
static void print_wrapped(const char *text, unsigned int indent)
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

static void print_cap(const struct hgm_cap *cap)
{
	const char *help = help_for(cap);

	printf("%-*s%-*s", NAME_WIDTH, cap->name, ANSWER_WIDTH, answer_text(cap->answer));
	print_wrapped(cap->reason, INDENT);
	if (*help) {
		printf("%*shelps: ", INDENT, "");
		print_wrapped(help, INDENT + 7);
	}
}

static void print_backing(const struct backing *b)
{
	char text[640];
	char size[16];

	snprintf(size, sizeof(size), "%s",
		 b->fault_bytes >> 30	? "1 GiB"
		 : b->fault_bytes >> 20 ? "2 MiB"
					: "4 KiB");
	if (!b->says)
		snprintf(text, sizeof(text), "not tested");
	else if (b->answer != HGM_YES)
		/* The verdict's reason begins with the stage that gave it. */
		snprintf(text, sizeof(text), "%s%s%s",
			 strcmp(b->says->name, "hgm") ? b->says->name : "",
			 strcmp(b->says->name, "hgm") ? ": " : "", b->says->reason);
	else
		snprintf(text, sizeof(text), "a fault waits for %s; a block %s", size,
			 !b->huge_by ? "stays in small pages"
			 : !strcmp(b->huge_by, "remap")
				 ? "becomes huge by remapping when it is full"
			 : !strcmp(b->huge_by, "copy") ? "becomes huge by a copy when it is full"
						       : "is huge from the start");
	printf("  %-*s%-*s", NAME_WIDTH - 2, b->title, ANSWER_WIDTH, answer_text(b->answer));
	print_wrapped(text, INDENT);
}

static void print_ways(const struct hgm_caps *caps)
{
	static const char *const ways[] = { "uffd.device", "uffd.syscall", "uffd.user_mode_only" };

	for (int i = 0; i < 3; i++) {
		const struct hgm_cap *cap = hgm_caps_find(caps, ways[i]);

		if (cap && cap->answer != HGM_YES)
			print_cap(cap);
	}
}

static void print_verdict(const struct findings *f)
{
	struct utsname uts = { 0 };

	uname(&uts);
	printf("Linux %s on %s: ", uts.release, uts.machine);
	if (f->no_uffd)
		printf("no userfaultfd is available here, so no memory can be served.\n");
	else if (f->best)
		printf("the best backing here is %s%s.\n", f->best->title,
		       f->user_mode_only ? ", for faults of user mode only: not for KVM" : "");
	else
		printf("no backing is proven to work here.\n");
	for (int i = 0; i < BACKINGS && !f->no_uffd; i++)
		print_backing(&f->backings[i]);
	if (f->no_uffd) {
		print_ways(f->caps);
	} else if (f->user_mode_only) {
		printf("Only faults of user mode can be served, not those of KVM guests and system "
		       "calls. The ways to get a full userfaultfd are refused:\n");
		print_ways(f->caps);
	}
}

static void print_table(const struct findings *f)
{
	print_verdict(f);
	printf("\n%-*s%-*s%s\n", NAME_WIDTH, "CAPABILITY", ANSWER_WIDTH, "ANSWER", "WHY");
	for (unsigned int i = 0; i < hgm_caps_count(f->caps); i++)
		print_cap(hgm_caps_at(f->caps, i));
}

static const char usage[] = "usage: hgm-probe [--prove] [--json] [NAME...]\n"
			    "       hgm-probe --help | --version\n";

struct request {
	unsigned int flags;
	bool json;
	bool done; /* --help or --version did all the work */
	char **names;
	int count;
};

static bool parse(struct request *q, int argc, char **argv)
{
	unsigned int version = hgm_version();
	bool options = true;

	q->names = argv;
	for (int i = 1; i < argc; i++) {
		if (!options || argv[i][0] != '-') {
			q->names[q->count++] = argv[i];
		} else if (!strcmp(argv[i], "--")) {
			options = false;
		} else if (!strcmp(argv[i], "--prove")) {
			q->flags |= HGM_CAPS_USE_HUGE_PAGES;
		} else if (!strcmp(argv[i], "--json")) {
			q->json = true;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			printf("%s", usage);
			q->done = true;
			return true;
		} else if (!strcmp(argv[i], "--version")) {
			printf("hgm-probe %u.%u.%u\n", version >> 16, version >> 8 & 0xff,
			       version & 0xff);
			q->done = true;
			return true;
		} else {
			fprintf(stderr, "hgm-probe: unknown option '%s'\n%s", argv[i], usage);
			return false;
		}
	}
	return true;
}

/* A mistyped name must not pass for an answer. */
static bool know_names(const struct hgm_caps *caps, const struct request *q)
{
	bool all = true;

	for (int i = 0; i < q->count; i++) {
		if (hgm_caps_find(caps, q->names[i]))
			continue;
		fprintf(stderr, "hgm-probe: %s: no such capability\n", q->names[i]);
		all = false;
	}
	if (!all)
		fprintf(stderr, "Run hgm-probe without names to list all capabilities.\n");
	return all;
}

/* Print the named capabilities. The kernel must have all of them. */
static int print_named(const struct findings *f, const struct request *q)
{
	int status = STATUS_FINE;

	for (int i = 0; i < q->count; i++) {
		const struct hgm_cap *cap = hgm_caps_find(f->caps, q->names[i]);

		if (!q->json)
			print_cap(cap);
		if (cap->answer != HGM_YES)
			status = STATUS_COARSE;
	}
	return status;
}

/* Lost output must not pass for an answer. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		perror("hgm-probe: standard output");
		return STATUS_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct request q = { 0 };
	struct hgm_caps *caps;
	struct findings f;
	int status;

	if (!parse(&q, argc, argv))
		return STATUS_USAGE;
	if (q.done)
		return finish(STATUS_FINE);
	if (hgm_caps_probe(&caps, q.flags)) {
		fprintf(stderr, "hgm-probe: %s\n", hgm_errmsg());
		return STATUS_FAILED;
	}
	if (!know_names(caps, &q)) {
		hgm_caps_free(caps);
		return STATUS_USAGE;
	}
	width = terminal_width();
	find_out(&f, caps, q.flags & HGM_CAPS_USE_HUGE_PAGES);
	status = q.count ? print_named(&f, &q) : f.status;
	if (q.json)
		print_json(&f, q.names, q.count, status);
	else if (!q.count)
		print_table(&f);
	hgm_caps_free(caps);
	return finish(status);
}
