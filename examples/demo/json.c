/* SPDX-License-Identifier: 0BSD */
/*
 * The report for programs: {"runs": [...], "skipped": [{"name", "reason"}]}
 */
#include <errno.h>
#include <stdio.h>

#include "report.h"

static void text(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < ' ')
			fprintf(f, "\\u%04x", *s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static void member(FILE *f, const char *name, const char *value)
{
	fprintf(f, "\"%s\": ", name);
	text(f, value);
	fputs(", ", f);
}

static void write_run(FILE *f, const struct job *job, const struct result *r,
		      const struct setting *setting)
{
	char link[40];

	report_link(link, sizeof(link), job, setting);
	fputs("    {", f);
	member(f, "name", job->name);
	member(f, "backing", job->json);
	fprintf(f, "\"block\": %llu, \"map_granularity\": %llu, ", (unsigned long long)r->block,
		(unsigned long long)r->map);
	member(f, "link", link);
	fprintf(f, "\"faults\": %llu,\n     \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, ",
		(unsigned long long)r->faults, stalls_quantile(&r->stalls, 500),
		stalls_quantile(&r->stalls, 990), stalls_quantile(&r->stalls, 1000));
	fprintf(f, "\"complete_ms\": %.2f, \"blocks\": %llu, \"collapsed\": %llu, ", r->complete_ms,
		(unsigned long long)r->blocks, (unsigned long long)(r->huge_bytes / r->block));
	fprintf(f, "\"checksum_ok\": %s, \"huge_bytes\": %llu}", r->checksum_ok ? "true" : "false",
		(unsigned long long)r->huge_bytes);
}

int report_json(const char *path, const struct job *job, const struct result *result,
		unsigned int count, const struct setting *setting)
{
	FILE *f = fopen(path, "we");
	const char *separator = "\n";
	unsigned int i;
	int rc;

	if (!f)
		return -errno;
	fputs("{\n", f);
	if (setting->model) {
		fputs("  \"model\": ", f);
		text(f, setting->model);
		fputs(",\n", f);
	}
	fputs("  \"runs\": [", f);
	for (i = 0; i < count; i++) {
		if (result[i].outcome == JOB_SKIPPED)
			continue;
		fputs(separator, f);
		write_run(f, &job[i], &result[i], setting);
		separator = ",\n";
	}
	fputs("\n  ],\n  \"skipped\": [", f);
	separator = "\n";
	for (i = 0; i < count; i++) {
		if (result[i].outcome != JOB_SKIPPED)
			continue;
		fprintf(f, "%s    {", separator);
		member(f, "name", job[i].name);
		fputs("\"reason\": ", f);
		text(f, result[i].why);
		fputc('}', f);
		separator = ",\n";
	}
	fputs("\n  ]\n}\n", f);
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && !rc)
		rc = -errno;
	return rc;
}
