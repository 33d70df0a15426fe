/* SPDX-License-Identifier: 0BSD */
/*
 * demo - a guest that starts at once on memory whose contents are still in a file
 *
 * The demo runs the same guest on several backings, with contents from a local file and over an
 * imitated link. It shows how long the guest waits for its pages, and whether it ends up on huge
 * pages.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hgm/hgm.h>

#include "../model.h"
#include "demo_command.h"
#include "job.h"
#include "kvm.h"
#include "report.h"

#define MIB_2 (UINT64_C(2) << 20)
#define GIB_1 (UINT64_C(1) << 30)

static const struct job backings[] = {
	{ "hugetlb-1g", "hugetlb 1 GiB", "hugetlb", HGM_BACKING_HUGETLB, GIB_1, PIECES_BLOCK },
	{ "hugetlb-2m", "hugetlb 2 MiB", "hugetlb", HGM_BACKING_HUGETLB, MIB_2, PIECES_BLOCK },
	{ "hgm-1g", "HGM 1 GiB", "hgm", HGM_BACKING_HUGETLB, GIB_1, PIECES_PAGE },
	{ "hgm-2m", "HGM 2 MiB", "hgm", HGM_BACKING_HUGETLB, MIB_2, PIECES_PAGE },
	{ "shmem", "shmem, prepared", "shmem", HGM_BACKING_SHMEM, MIB_2, PIECES_ANY },
	{ "shmem-lazy", "shmem, lazy", "shmem-lazy", HGM_BACKING_SHMEM_LAZY, MIB_2, PIECES_ANY },
};

enum {
	BACKINGS = sizeof(backings) / sizeof(backings[0]),
	JOBS = BACKINGS * 2
};

struct options {
	struct setting setting;
	struct snapshot snapshot;
	const char *json;
	const char *model;
	bool threads;
	bool keep;
	struct job job[JOBS];
	unsigned int jobs;
};

static void usage(FILE *f)
{
	unsigned int i;

	fprintf(f, "usage: demo [OPTIONS]\n"
		   "       demo snapshot [OPTIONS]\n"
		   "       demo dirty [OPTIONS]\n"
		   "       demo balloon [OPTIONS]\n\n"
		   "A guest starts at once on memory whose contents are still in a file: how long "
		   "does it\n"
		   "wait for its pages, and does it end up on huge pages?\n\n"
		   "  --size MIB           memory to restore, 2 to 2048, even (512)\n"
		   "  --link GBPS:RTT_US   bandwidth and round trip of the imitated link (10:100)\n"
		   "  --only NAME          only this run, or the two of this backing; may be "
		   "repeated\n"
		   "  --json FILE          write the results there, and the picture beside it\n"
		   "  --model NAME         run on the model of another kernel: hgm, rfc, "
		   "hgm-next,\n"
		   "                       stock, stock-6.1\n"
		   "  --threads            threads in place of a KVM guest\n"
		   "  --keep               keep the snapshot file\n"
		   "  --help               this text\n\n"
		   "demo snapshot: all memory as it was at one instant, while a guest writes to "
		   "it\n"
		   "demo dirty: a guest moves while it writes, round by round\n"
		   "demo balloon: a guest gives half of its memory back while it is "
		   "restored\n\n"
		   "Runs:");
	for (i = 0; i < BACKINGS; i++)
		fprintf(f, " %s.file %s.link", backings[i].name, backings[i].name);
	fputc('\n', f);
}

/* List all runs in the order of the backings: first those from the file, then the link. */
static void all_jobs(struct job *job)
{
	unsigned int i;

	for (i = 0; i < JOBS; i++) {
		job[i] = backings[i % BACKINGS];
		job[i].link = i >= BACKINGS;
		snprintf(job[i].name, sizeof(job[i].name), "%s.%s", backings[i % BACKINGS].name,
			 job[i].link ? "link" : "file");
	}
}

/* Mark the run called @name, or both runs of the backing called @name. */
static bool select_jobs(const char *name, bool *wanted)
{
	struct job job[JOBS];
	bool found = false;
	unsigned int i;

	all_jobs(job);
	for (i = 0; i < JOBS; i++) {
		if (strcmp(name, job[i].name) == 0 ||
		    strcmp(name, backings[i % BACKINGS].name) == 0)
			wanted[i] = found = true;
	}
	return found;
}

static bool says_yes(const struct hgm_caps *caps, const char *name)
{
	const struct hgm_cap *cap = hgm_caps_find(caps, name);

	return cap && cap->answer == HGM_YES;
}

/* Return true if the kernel may have HGM. If not, its rows are shown only on request. */
static bool kernel_knows_hgm(void)
{
	struct hgm_caps *caps;
	bool knows;

	if (hgm_caps_probe(&caps, 0))
		return false;
	knows = says_yes(caps, "hgm.advice") || says_yes(caps, "hgm.feature");
	hgm_caps_free(caps);
	return knows;
}

/* Return: 0, an exit code, or a negative value after --help. */
static int parse(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{ "size", required_argument, NULL, 's' },
		{ "link", required_argument, NULL, 'l' },
		{ "only", required_argument, NULL, 'o' },
		{ "json", required_argument, NULL, 'j' },
		{ "threads", no_argument, NULL, 't' },
		{ "keep", no_argument, NULL, 'k' },
		{ "model", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool wanted[JOBS] = { false }, some = false, hgm;
	struct job job[JOBS];
	char why[256];
	unsigned int i;
	int c;

	while ((c = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		switch (c) {
		case 's':
			if (!parse_size(optarg, &o->setting.length))
				return misused("demo",
					       "--size wants an even number of MiB from 2 to 2048, "
					       "not '%s'",
					       optarg);
			break;
		case 'l':
			if (!parse_link(optarg, &o->setting.link))
				return misused("demo",
					       "--link wants GBPS:RTT_US such as 10:100, not '%s'",
					       optarg);
			break;
		case 'o':
			if (!select_jobs(optarg, wanted))
				return misused("demo", "--only knows no run '%s'", optarg);
			some = true;
			break;
		case 'j':
			o->json = optarg;
			break;
		case 'm':
			o->model = optarg;
			break;
		case 't':
			o->threads = true;
			break;
		case 'k':
			o->keep = true;
			break;
		case 'h':
			usage(stdout);
			return -1;
		default:
			fprintf(stderr, "Try demo --help\n");
			return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return misused("demo", "unexpected argument '%s'", argv[optind]);
	if (o->model && !model_use(o->model, why, sizeof(why)))
		return misused("demo", "--model: %s", why);
	o->setting.model = o->model;
	hgm = kernel_knows_hgm();
	all_jobs(job);
	for (i = 0; i < JOBS; i++) {
		if (some ? wanted[i] : hgm || job[i].pieces != PIECES_PAGE)
			o->job[o->jobs++] = job[i];
	}
	return 0;
}

/* The picture goes next to the JSON, else next to this program, else to the current directory. */
static void picture_path(const struct options *o, char *path, size_t size)
{
	ssize_t length;
	char *end;

	if (o->json) {
		length = strlen(o->json);
		if (length > 5 && !strcmp(o->json + length - 5, ".json"))
			length -= 5;
		snprintf(path, size, "%.*s.svg", (int)length, o->json);
		return;
	}
	length = readlink("/proc/self/exe", path, size - 1);
	path[length < 0 ? 0 : length] = '\0';
	end = strrchr(path, '/');
	if (end)
		end[1] = '\0';
	if (!end || access(path, W_OK) || strlen(path) + sizeof("demo.svg") > size)
		path[0] = '\0';
	strcat(path, "demo.svg");
}

static int report(const struct options *o, const struct result *result)
{
	char picture[PATH_MAX + 8];
	bool some = false;
	unsigned int i;
	int rc = 0;

	report_table(o->job, result, o->jobs, &o->setting);
	for (i = 0; i < o->jobs; i++) {
		if (result[i].outcome == JOB_FAILED)
			rc = EXIT_WRONG;
		some |= result[i].stalls.us != NULL;
	}
	if (rc) {
		fflush(stdout);
		fprintf(stderr, "demo: something is WRONG, see above\n");
	}
	picture_path(o, picture, sizeof(picture));
	if (!some)
		printf("No picture: nothing could be run\n");
	else if (!cannot_write(picture, report_svg(picture, o->job, result, o->jobs, &o->setting)))
		printf("The picture: %s\n", picture);
	else if (o->json)
		rc = EXIT_WRONG;
	if (o->json) {
		if (cannot_write(o->json,
				 report_json(o->json, o->job, result, o->jobs, &o->setting)))
			rc = EXIT_WRONG;
		else
			printf("The results: %s\n", o->json);
	}
	return rc;
}

static int demo(struct options *o)
{
	struct result result[JOBS] = { 0 };
	uint64_t length = 0, n;
	char why[512];
	unsigned int i;
	int rc;

	if (o->json && !writable(o->json))
		return EXIT_USAGE;
	o->setting.kvm = !o->threads && kvm_usable(why, sizeof(why));
	if (o->model)
		printf("Not this kernel's hugetlb memory, but a MODEL of another kernel: '%s'\n",
		       o->model);
	if (o->setting.kvm)
		printf("Guest: KVM, two virtual CPUs, 32-bit protected mode\n");
	else
		printf("No guest: two threads do its work (%s)\n", o->threads ? "--threads" : why);
	for (i = 0; i < o->jobs; i++) {
		n = job_length(&o->job[i], o->setting.length);
		length = n > length ? n : length;
	}
	printf("Making a snapshot of %llu MiB ...\n", (unsigned long long)length >> 20);
	if (snapshot_create(&o->snapshot, length, SEED, o->keep, why, sizeof(why))) {
		fprintf(stderr, "demo: %s\n", why);
		return EXIT_WRONG;
	}
	if (o->keep)
		printf("The snapshot: %s\n", o->snapshot.path);
	o->setting.snapshot = &o->snapshot;
	for (i = 0; i < o->jobs; i++) {
		if (!o->setting.terminal) {
			printf("%s ...\n", o->job[i].name);
			fflush(stdout);
		}
		job_run(&o->job[i], &o->setting, &result[i]);
		if (result[i].hangs)
			break;
	}
	if (i < o->jobs)
		o->jobs = i + 1;
	rc = report(o, result);
	if (i < o->jobs) {
		fflush(NULL);
		_exit(rc);
	}
	for (i = 0; i < o->jobs; i++)
		stalls_free(&result[i].stalls);
	snapshot_close(&o->snapshot);
	return rc;
}

int main(int argc, char **argv)
{
	struct options options = {
		.setting = {
			.length = UINT64_C(512) << 20,
			.link = { .gbps = 10, .rtt_us = 100 },
			.seed = SEED,
			.terminal = isatty(STDOUT_FILENO),
		},
	};
	int rc;

	setlocale(LC_CTYPE, "");
	if (argc > 1 && !strcmp(argv[1], "snapshot"))
		return demo_snapshot(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "dirty"))
		return demo_dirty(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "balloon"))
		return demo_balloon(argc - 1, argv + 1);
	rc = parse(&options, argc, argv);
	if (rc)
		return rc < 0 ? 0 : rc;
	return demo(&options);
}
