/* SPDX-License-Identifier: 0BSD */
/*
 * The report of demo snapshot: see snapshot_report.h
 */
#include <errno.h>
#include <stdio.h>

#include "snapshot_report.h"

const char *const snapshot_names[COPIES] = { "live snapshot", "stop and copy", "copy, no stop" };

static void row(const char *name, double paused_us, const struct stalls *s,
		const struct moment *from, const struct moment *to, double usual_per_s)
{
	double per_s = moment_writes_per_s(from, to);
	char paused[16], p50[16], p99[16], max[16], took[16];

	stalls_format(paused, sizeof(paused), paused_us);
	stalls_format(p50, sizeof(p50), stalls_quantile(s, 500));
	stalls_format(p99, sizeof(p99), stalls_quantile(s, 990));
	stalls_format(max, sizeof(max), stalls_quantile(s, 1000));
	stalls_format(took, sizeof(took), to->us - from->us);
	printf("%-13s %8s %7zu %8s %8s %8s %8s %9.0f %5.0f %%  ", name, paused, s->count, p50, p99,
	       max, took, per_s, 100 * per_s / usual_per_s);
}

/* Print the pages of a file that are not of its instant. */
static void file_column(const struct copy *c)
{
	const struct instant_verdict *v = &c->verdict;
	const struct {
		uint64_t pages;
		const char *what;
	} kinds[] = { { v->newer, "newer" },
		      { v->older, "older" },
		      { v->torn, "torn" },
		      { v->other, "wrong" } };
	const char *separator = "";
	size_t i;

	if (c->one_instant)
		printf("one instant");
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!kinds[i].pages)
			continue;
		printf("%s%llu %s", separator, (unsigned long long)kinds[i].pages, kinds[i].what);
		separator = ", ";
	}
	printf("\n");
}

void snapshot_table(const struct snapshot_result *r)
{
	double usual = moment_writes_per_s(&r->usual[0], &r->usual[1]);
	int i;

	printf("\n%-13s %8s %7s %8s %8s %8s %8s %9s %7s  %s\n", "", "PAUSED", "STALLS", "P50",
	       "P99", "MAX", "TAKES", "WRITES/S", "USUAL", "PAGES");
	row("nothing", 0, &r->noise, &r->usual[0], &r->usual[1], usual);
	printf("-\n");
	for (i = 0; i < COPIES; i++) {
		const struct copy *c = &r->copy[i];

		row(snapshot_names[i], c->paused_us, &c->stalls, &c->from, &c->to, usual);
		file_column(c);
	}
	fflush(stdout);
}

void snapshot_sentences(const struct snapshot_result *r)
{
	const struct copy *live = &r->copy[LIVE];
	char protected[16], huge[16], first[16], complete[16];

	stalls_format(protected, sizeof(protected), live->protected_us);
	stalls_format(huge, sizeof(huge), r->huge_us);
	stalls_format(first, sizeof(first), r->second_first_us);
	stalls_format(complete, sizeof(complete), r->second_complete_us);
	printf("\nA stall is a write that took, by the guest's own clock, %g us longer than usual "
	       "(%.1f us) or more.\n"
	       "The live snapshot's pause: stopping two CPUs, and %s of write-protecting. %llu MiB "
	       "were copied\nbefore the guest wrote to them. Everything was huge again %s after "
	       "its end.\n",
	       STALLS_LEAST_US, r->write_us, protected, (unsigned long long)live->copied >> 20,
	       huge);
	printf("Pages: each byte was compared with what the writes up to the instant (%u and %u of "
	       "the CPUs) must\nhave left. A copy without a stop cannot be of one instant, and is "
	       "there to show that this is found.\n",
	       live->at.box[0].sequence, live->at.box[1].sequence);
	if (r->proved)
		printf("The live snapshot is byte for byte what memory was while the guest stood "
		       "still; making that copy\nis a part of its pause.\n");
	printf("A second guest went on from the live snapshot: both CPUs had written after %s, "
	       "everything was\npresent and huge after %s, and %llu writes later each byte of its "
	       "memory is right.\n",
	       first, complete, (unsigned long long)r->second_writes);
}

static void json_stalls(FILE *f, const struct stalls *s)
{
	fprintf(f, "\"stalls\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f",
		s->count, stalls_quantile(s, 500), stalls_quantile(s, 990),
		stalls_quantile(s, 1000));
}

int snapshot_json(const struct snapshot_result *r, const char *path)
{
	static const char *const keys[] = { "live", "stopped", "running" };
	FILE *f = fopen(path, "we");
	int rc, i;

	if (!f)
		return -errno;
	fprintf(f, "{\n  \"kvm\": %s, \"bytes\": %llu, \"usual_writes_per_s\": %.0f,\n",
		r->kvm ? "true" : "false", (unsigned long long)r->length,
		moment_writes_per_s(&r->usual[0], &r->usual[1]));
	for (i = 0; i < COPIES; i++) {
		const struct copy *c = &r->copy[i];
		const struct instant_verdict *v = &c->verdict;

		fprintf(f,
			"  \"%s\": {\"paused_us\": %.2f, \"took_us\": %.2f, \"writes_per_s\": "
			"%.0f,\n    ",
			keys[i], c->paused_us, c->to.us - c->from.us,
			moment_writes_per_s(&c->from, &c->to));
		json_stalls(f, &c->stalls);
		fprintf(f,
			",\n    \"one_instant\": %s, \"newer\": %llu, \"older\": %llu, \"torn\": "
			"%llu, \"other\": %llu},\n",
			c->one_instant ? "true" : "false", (unsigned long long)v->newer,
			(unsigned long long)v->older, (unsigned long long)v->torn,
			(unsigned long long)v->other);
	}
	fprintf(f, "  \"second\": {\"complete_us\": %.2f, \"writes\": %llu}\n}\n",
		r->second_complete_us, (unsigned long long)r->second_writes);
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && !rc)
		rc = -errno;
	return rc;
}
