/* SPDX-License-Identifier: 0BSD */
/*
 * Options of the demo's commands, and the start of those whose guest writes: see demo_command.h
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "demo_command.h"
#include "kvm.h"
#include "progress.h"

#define MIB UINT64_C(1048576)

static const struct {
	const char *name;
	uint32_t backing;
	uint64_t block;
} backings[] = {
	{ "shmem", HGM_BACKING_SHMEM, 2 * MIB },
	{ "shmem-lazy", HGM_BACKING_SHMEM_LAZY, 2 * MIB },
	{ "hugetlb-2m", HGM_BACKING_HUGETLB, 2 * MIB },
	{ "hugetlb-1g", HGM_BACKING_HUGETLB, 1024 * MIB },
	{ "anon", HGM_BACKING_ANON, 2 * MIB },
};

#define BACKING_NAMES "shmem, shmem-lazy, hugetlb-2m, hugetlb-1g, anon"

int misused(const char *command, const char *format, const char *argument)
{
	fprintf(stderr, "%s: ", command);
	fprintf(stderr, format, argument);
	fprintf(stderr, "\nTry %s --help\n", command);
	return EXIT_USAGE;
}

bool parse_size(const char *text, uint64_t *length)
{
	char *end;
	unsigned long mib = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || mib < 2 || mib > GUEST_MAX_LENGTH >> 20 ||
	    mib % 2)
		return false;
	*length = mib * MIB;
	return true;
}

bool parse_link(const char *text, struct link_opts *link)
{
	char *end;

	link->gbps = strtod(text, &end);
	if (end == text || *end != ':')
		return false;
	text = end + 1;
	link->rtt_us = strtod(text, &end);
	return end != text && !*end && link->gbps >= 0.001 && link->gbps <= 10000 &&
	       link->rtt_us >= 0 && link->rtt_us <= 1e6;
}

int cannot_write(const char *path, int rc)
{
	if (rc)
		fprintf(stderr, "demo: cannot write %s: %s\n", path, strerror(-rc));
	return rc;
}

bool writable(const char *path)
{
	FILE *f = fopen(path, "ae");

	if (!f)
		return !cannot_write(path, -errno);
	fclose(f);
	return true;
}

void live_options_usage(FILE *f, const char *rate)
{
	fprintf(f, "  --size MIB      the guest's memory, 2 to 2048, even (512)\n"
		   "  --backing NAME  what it is: " BACKING_NAMES " (shmem)\n"
		   "  --threads       threads in place of a KVM guest\n"
		   "  --json FILE     write the results there\n"
		   "  --help          this text\n");
	if (rate)
		fprintf(f, "  --rate N        writes a second, of both CPUs together (%s)\n", rate);
}

int live_getopt(int argc, char **argv, const struct option *own)
{
	static const struct option common[] = {
		{ "size", required_argument, NULL, 's' },
		{ "backing", required_argument, NULL, 'b' },
		{ "rate", required_argument, NULL, 'r' },
		{ "threads", no_argument, NULL, 't' },
		{ "json", required_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
	};
	enum {
		COMMON = sizeof(common) / sizeof(common[0])
	};
	struct option known[COMMON + 9] = { 0 };
	int i;

	memcpy(known, common, sizeof(common));
	for (i = 0; own[i].name; i++)
		known[COMMON + i] = own[i];
	return getopt_long(argc, argv, "h", known, NULL);
}

static bool parse_backing(const char *name, struct machine_opts *m)
{
	size_t i;

	for (i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		if (strcmp(name, backings[i].name) != 0)
			continue;
		m->backing = backings[i].backing;
		m->block = backings[i].block;
		return true;
	}
	return false;
}

static bool parse_rate(const char *text, double *writes_per_s)
{
	char *end;
	unsigned long rate = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || rate < 100 || rate > 100000000)
		return false;
	*writes_per_s = rate;
	return true;
}

int live_option(struct live_options *o, int c)
{
	switch (c) {
	case 's':
		if (parse_size(optarg, &o->machine.length))
			return 0;
		return misused(o->command,
			       "--size wants an even number of MiB from 2 to 2048, not '%s'",
			       optarg);
	case 'b':
		if (parse_backing(optarg, &o->machine))
			return 0;
		return misused(o->command, "--backing knows " BACKING_NAMES ", not '%s'", optarg);
	case 'r':
		if (parse_rate(optarg, &o->machine.writes_per_s))
			return 0;
		return misused(o->command,
			       "--rate wants writes a second, 100 to 100000000, not '%s'", optarg);
	case 't':
		o->threads = true;
		return 0;
	case 'j':
		o->json = optarg;
		return 0;
	default: /* getopt_long() has printed the error */
		fprintf(stderr, "Try %s --help\n", o->command);
		return EXIT_USAGE;
	}
}

int live_options_end(struct live_options *o, int argc, char **argv)
{
	struct machine_opts *m = &o->machine;
	uint64_t asked;

	if (optind < argc)
		return misused(o->command, "unexpected argument '%s'", argv[optind]);
	if (o->json && !writable(o->json))
		return EXIT_USAGE;
	asked = m->length;
	m->length = m->length / m->block * m->block;
	if (!m->length)
		m->length = m->block;
	if (m->length != asked)
		printf("%llu MiB of memory, not %llu: whole blocks of %llu MiB\n",
		       (unsigned long long)(m->length / MIB), (unsigned long long)(asked / MIB),
		       (unsigned long long)(m->block / MIB));
	return 0;
}

void live_note(const char *note)
{
	if (!isatty(STDOUT_FILENO))
		return;
	if (note)
		progress_note("the guest", note);
	else
		progress_clear();
}

int live_failed(const char *what, int rc, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "demo: %s: %s\n", what, why);
	return rc == -EOPNOTSUPP || rc == -ENOMEM || rc == -ENODEV || rc == -ENOSPC || rc == -EPERM
		       ? EXIT_CANNOT
		       : EXIT_WRONG;
}

static int begin(struct live_options *o, struct snapshot *base, struct machine *m)
{
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_source *source;
	int rc;

	rc = hgm_source_fd(&source, base->fd);
	if (rc)
		return live_failed("the guest's memory", rc, hgm_errmsg());
	rc = machine_create(m, &o->machine, source);
	if (!rc)
		rc = hgm_region_get_info(m->region, &info);
	if (!rc)
		rc = machine_start(m, NULL);
	if (!rc)
		rc = machine_complete(m);
	if (rc) {
		machine_destroy(m);
		return live_failed("the guest", rc, m->why);
	}
	printf("Its memory: %llu MiB, %s\n", (unsigned long long)(o->machine.length / MIB),
	       info.sentence);
	return 0;
}

int live_begin(struct live_options *o, struct snapshot *base, struct machine *m)
{
	char why[512];
	int rc;

	o->machine.kvm = !o->threads && kvm_usable(why, sizeof(why));
	o->machine.seed = SEED;
	if (o->machine.kvm)
		printf("Guest: KVM, two virtual CPUs that write all the time\n");
	else
		printf("No guest: two threads do its work (%s)\n", o->threads ? "--threads" : why);
	fflush(stdout);
	rc = snapshot_create(base, o->machine.length, SEED, false, why, sizeof(why));
	if (rc)
		return live_failed("the guest's memory", rc, why);
	rc = begin(o, base, m);
	if (rc)
		snapshot_close(base);
	return rc;
}
