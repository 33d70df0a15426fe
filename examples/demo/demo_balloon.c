/* SPDX-License-Identifier: 0BSD */
/*
 * demo balloon - a guest gives back half of its memory while it is restored, and uses it again
 *
 * The guest names the pages that it gives up, one by one, whether they have arrived or not. The
 * host discards each page with hgm_region_discard(). Each time the guest uses a page, it checks the
 * contents: zeroes if the page came back from the balloon, else the last record. At the end the
 * host compares every byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../link.h"
#include "balloon.h"
#include "demo_command.h"
#include "kvm.h"
#include "report.h"

#define MIB	    1048576.0
#define ROWS	    200
#define ROW_US	    250e3
#define IN_USE_US   1e6
#define PATIENCE_US 60e6
#define HUGE_US	    5e6
#define NAP_NS	    200000

/* The host may use this much more memory than the guest has in use. */
#define MOST_PERCENT 1

struct row {
	const char *phase;
	double us;
	uint64_t balloon, arrived, memory, faults, huge;
};

struct demo {
	struct live_options options;
	struct link_opts how;
	uint64_t unit;
	struct snapshot base;
	struct link *link;
	struct hgm_source *source;
	struct hgm *engine;
	struct hgm_region *region;
	struct balloon *guest;
	struct balloon_opts opts;
	int fd; /* the file of its memory; -1 if it is anonymous */
	bool hangs;
	double started_us;
	struct row row[ROWS];
	unsigned int rows;
	struct stalls discards;
	bool snapshot; /* a snapshot could be taken */
	char why[512];
};

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

static int said(struct demo *d, int rc)
{
	if (rc)
		snprintf(d->why, sizeof(d->why), "%s", hgm_errmsg());
	return rc;
}

static void usage(FILE *f)
{
	fprintf(f, "usage: demo balloon [OPTIONS]\n"
		   "A guest gives half of its memory back while it is restored, and uses it again "
		   "later: what\n"
		   "does the host gain, and is each byte what it must be?\n\n");
	live_options_usage(f, NULL);
	fprintf(f, "  --link GBPS:RTT_US\n"
		   "                  the imitated link that memory comes from (1:100)\n");
}

static int parse(struct demo *d, int argc, char **argv)
{
	static const struct option own[] = { { "link", required_argument, NULL, 'l' }, { 0 } };
	const char *command = d->options.command;
	int c, rc;

	while ((c = live_getopt(argc, argv, own)) != -1) {
		if (c == 'h') {
			usage(stdout);
			return -1;
		}
		if (c == 'r')
			return misused(command, "it has no %s", "--rate");
		if (c == 'l' && !parse_link(optarg, &d->how))
			return misused(command, "--link wants GBPS:RTT_US such as 1:100, not '%s'",
				       optarg);
		rc = c == 'l' ? 0 : live_option(&d->options, c);
		if (rc)
			return rc;
	}
	rc = live_options_end(&d->options, argc, argv);
	/* hugetlb memory is given back in whole huge pages. */
	d->unit = d->options.machine.backing == HGM_BACKING_HUGETLB ? d->options.machine.block
								    : GUEST_PAGE;
	if (!rc && d->options.machine.length < UINT64_C(2) * GUEST_CPUS * d->unit)
		return misused(command, "each CPU must have two huge pages: --size is too small%s",
			       "");
	return rc;
}

/*
 * Return how much of the guest's memory is mapped. Nothing else maps this memory, and the zero page
 * does not count.
 */
static uint64_t mapped(const struct demo *d)
{
	uintptr_t from = (uintptr_t)d->opts.memory, start = 0, end;
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long kib, sum = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
			continue;
		if (start >= from && start < from + d->opts.length &&
		    sscanf(line, "Rss: %llu kB", &kib) == 1)
			sum += kib;
	}
	if (f)
		fclose(f);
	return sum << 10;
}

static uint64_t memory(const struct demo *d)
{
	struct stat st;

	if (d->fd < 0)
		return mapped(d);
	return fstat(d->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static void print(const struct row *row)
{
	printf("%-9s %7.2f s %9.1f %9.1f %9.1f %9llu %9llu\n", row->phase, row->us / 1e6,
	       row->balloon / MIB, row->arrived / MIB, row->memory / MIB,
	       (unsigned long long)row->faults, (unsigned long long)row->huge);
	fflush(stdout);
}

static const struct row *note(struct demo *d, const char *phase)
{
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_stats stats = { .size = sizeof(stats) };
	struct row *row = &d->row[d->rows < ROWS - 1 ? d->rows++ : ROWS - 1];

	hgm_region_get_info(d->region, &info);
	hgm_get_stats(d->engine, &stats);
	*row = (struct row){
		.phase = phase,
		.us = now_us() - d->started_us,
		.balloon = balloon_bytes(d->guest),
		.arrived = info.present_bytes,
		.memory = memory(d),
		.faults = stats.faults,
		.huge = info.huge_bytes / info.block_bytes,
	};
	print(row);
	return row;
}

/* Make the file that holds the guest's memory. @d->fd is -1 if the memory is anonymous. */
static int memory_file(struct demo *d)
{
	const struct machine_opts *m = &d->options.machine;
	unsigned int flags = MFD_CLOEXEC;

	d->fd = -1;
	if (m->backing == HGM_BACKING_ANON)
		return 0;
	if (m->backing == HGM_BACKING_HUGETLB)
		flags |= MFD_HUGETLB | (unsigned int)__builtin_ctzll(m->block) << MAP_HUGE_SHIFT;
	d->fd = memfd_create("guest", flags);
	if (d->fd < 0 || ftruncate(d->fd, (off_t)m->length)) {
		snprintf(d->why, sizeof(d->why), "the guest's memory: %s", strerror(errno));
		return -errno;
	}
	return 0;
}

static int make_region(struct demo *d)
{
	const struct machine_opts *m = &d->options.machine;
	struct hgm_region_opts region = {
		.size = sizeof(region),
		.length = m->length,
		.source = d->source,
		.backing = d->fd < 0 ? HGM_BACKING_ANON : HGM_BACKING_FD,
		.flags = m->backing == HGM_BACKING_SHMEM_LAZY ? HGM_REGION_LAZY : 0,
		.fd = d->fd,
	};
	struct hgm_opts engine = {
		.size = sizeof(engine),
		.flags = m->kvm ? 0 : HGM_ALLOW_USER_MODE_ONLY,
	};
	int rc;

	rc = said(d, hgm_create(&d->engine, &engine));
	if (!rc)
		rc = said(d, hgm_region_create(&d->region, d->engine, &region));
	return rc;
}

static int make_guest(struct demo *d)
{
	const struct machine_opts *m = &d->options.machine;

	d->opts = (struct balloon_opts){
		.memory = hgm_region_addr(d->region),
		.base = d->base.data,
		.length = m->length,
		.unit = d->unit,
		.seed = SEED,
		.kvm = m->kvm,
	};
	d->discards.us = malloc(m->length / d->unit * sizeof(*d->discards.us));
	if (!d->discards.us) {
		snprintf(d->why, sizeof(d->why), "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	return balloon_create(&d->guest, &d->opts, d->why, sizeof(d->why));
}

static int make(struct demo *d)
{
	struct hgm_region_info info = { .size = sizeof(info) };
	struct live_options *o = &d->options;
	char why[256];
	int rc;

	o->machine.kvm = !o->threads && kvm_usable(why, sizeof(why));
	if (o->machine.kvm)
		printf("Guest: KVM, two virtual CPUs that use all the memory they have\n");
	else
		printf("No guest: two threads do its work (%s)\n", o->threads ? "--threads" : why);
	fflush(stdout);
	rc = snapshot_create(&d->base, o->machine.length, SEED, false, d->why, sizeof(d->why));
	if (!rc)
		rc = memory_file(d);
	if (!rc)
		rc = link_create(&d->link, d->base.data, o->machine.length, &d->how);
	if (!rc)
		rc = said(d, link_source(&d->source, d->link));
	if (!rc)
		rc = make_region(d);
	if (!rc)
		rc = make_guest(d);
	if (!rc)
		rc = said(d, hgm_region_get_info(d->region, &info));
	if (!rc)
		printf("Its memory: %llu MiB, %s\n"
		       "It comes over an imitated link of %g Gb/s, and the balloon takes %s by "
		       "%s\n\n",
		       (unsigned long long)o->machine.length >> 20, info.sentence, d->how.gbps,
		       "half of it", report_bytes(d->unit));
	return rc;
}

/* Discard the units that the guest has given up. Return: their number or a negative errno. */
static int inflate(struct demo *d)
{
	uint64_t offset;
	double from;
	int n = 0, rc;

	/* Stop after a while, because the caller also prints a table. */
	while (n < 1000 && balloon_take(d->guest, &offset)) {
		from = now_us();
		rc = said(d, hgm_region_discard(d->region, offset, d->unit));
		if (rc)
			return rc;
		d->discards.us[d->discards.count++] = now_us() - from;
		n++;
	}
	return n;
}

/* Returns true when a phase is done. */
typedef bool (*done_fn)(struct demo *d, double us);

/* Serve the balloon, and print a row now and then, until the phase is done. */
static int phase(struct demo *d, const char *name, double patience_us, done_fn done)
{
	double from = now_us(), next = from + ROW_US;
	int rc;

	for (;;) {
		rc = inflate(d);
		if (rc < 0)
			return rc;
		if (balloon_verdict(d->guest, d->why, sizeof(d->why)))
			return -EILSEQ;
		if (now_us() >= next) {
			note(d, name);
			/* Keep the table short when a phase takes long. */
			next = now_us() + ROW_US + (now_us() - from) / 8;
		}
		if (!rc && done(d, now_us() - from))
			break;
		if (now_us() - from >= patience_us) {
			snprintf(d->why, sizeof(d->why), "'%s' takes longer than %.0f s", name,
				 patience_us / 1e6);
			return -ETIMEDOUT;
		}
		if (!rc)
			nap();
	}
	note(d, name);
	return 0;
}

static uint64_t half(const struct demo *d)
{
	return d->options.machine.length / d->unit / (UINT64_C(2) * GUEST_CPUS) * GUEST_CPUS *
	       d->unit;
}

static bool restored(struct demo *d, double us)
{
	(void)us;
	return balloon_bytes(d->guest) == half(d) && !hgm_wait(d->engine, 0);
}

static bool used(struct demo *d, double us)
{
	(void)d;
	return us >= IN_USE_US;
}

static bool deflated(struct demo *d, double us)
{
	static uint32_t laps; /* lap at which all pages were used after the balloon was empty */

	(void)us;
	if (balloon_bytes(d->guest))
		return false;
	if (!laps)
		laps = balloon_laps(d->guest) + 2;
	return balloon_laps(d->guest) >= laps;
}

static bool huge(struct demo *d, double us)
{
	struct hgm_region_info info = { .size = sizeof(info) };

	hgm_region_get_info(d->region, &info);
	/* Huge pages may be scarce, so do not wait for all of them. */
	return us >= HUGE_US || info.huge_bytes == info.length;
}

/* Check that the host has no more memory in use than the guest. */
static int check_memory(struct demo *d, const char *when)
{
	uint64_t most = d->options.machine.length - half(d), now = memory(d);

	if (now <= most + most * MOST_PERCENT / 100)
		return 0;
	snprintf(d->why, sizeof(d->why),
		 "%s the host has %.1f MiB of memory in use, the guest %.1f MiB", when, now / MIB,
		 most / MIB);
	return -EILSEQ;
}

static int64_t forget(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)user;
	(void)buf;
	(void)offset;
	return (int64_t)length;
}

/* Take a snapshot and throw it away: holes must stay holes. */
static int take_snapshot(struct demo *d)
{
	struct hgm_snapshot_opts opts = { .size = sizeof(opts), .write = forget };
	struct hgm_snapshot *s;
	int rc = hgm_snapshot_create(&s, d->engine, &opts);

	if (rc == -EOPNOTSUPP)
		return 0; /* this kernel cannot protect that memory */
	if (rc)
		return said(d, rc);
	rc = said(d, hgm_snapshot_begin(s));
	if (!rc)
		rc = said(d, hgm_snapshot_wait(s, -1));
	hgm_snapshot_destroy(s);
	d->snapshot = !rc;
	if (!rc)
		note(d, "snapshot");
	return rc;
}

static int inflated(struct demo *d)
{
	int rc;

	balloon_set_target(d->guest, half(d));
	rc = balloon_start(d->guest, d->why, sizeof(d->why));
	if (!rc)
		rc = phase(d, "restore", PATIENCE_US, restored);
	if (!rc)
		rc = phase(d, "in use", PATIENCE_US, used);
	if (!rc)
		rc = check_memory(d, "after the balloon was inflated");
	if (!rc)
		rc = take_snapshot(d);
	if (!rc && d->snapshot)
		rc = check_memory(d, "after a snapshot");
	return rc;
}

static int live(struct demo *d)
{
	int rc = said(d, hgm_start(d->engine));

	if (!rc)
		rc = inflated(d);
	if (rc)
		return rc;
	balloon_set_target(d->guest, 0);
	rc = phase(d, "deflate", PATIENCE_US, deflated);
	if (!rc)
		rc = said(d, hgm_region_collapse(d->region));
	if (!rc)
		rc = phase(d, "huge", PATIENCE_US, huge);
	return rc;
}

static int end(struct demo *d)
{
	int rc = balloon_finish(d->guest, d->why, sizeof(d->why));

	d->hangs = rc == -ETIMEDOUT;
	if (!rc)
		rc = balloon_verdict(d->guest, d->why, sizeof(d->why));
	if (!rc)
		rc = balloon_check(d->guest, d->why, sizeof(d->why));
	return rc;
}

static void sentences(struct demo *d)
{
	struct hgm_stats stats = { .size = sizeof(stats) };
	struct link_stats link;
	char p50[16], p99[16];

	stalls_keep(&d->discards, UINT64_MAX);
	stalls_format(p50, sizeof(p50), stalls_quantile(&d->discards, 500));
	stalls_format(p99, sizeof(p99), stalls_quantile(&d->discards, 990));
	hgm_get_stats(d->engine, &stats);
	link_get_stats(d->link, &link);
	printf("\n%zu discards of %s: p50 %s, p99 %s. Of the pages %llu had not arrived, and were "
	       "not fetched:\n%.1f MiB came over the link.\n",
	       d->discards.count, report_bytes(d->unit), p50, p99,
	       (unsigned long long)stats.discarded_pages, link.bytes / MIB);
	printf("The guest used a page %llu times and found in it what it must: zeroes, if it came "
	       "back from\nthe balloon, else its last record. At the end each byte of its memory "
	       "is "
	       "right.\n",
	       (unsigned long long)balloon_writes(d->guest));
	if (!d->snapshot)
		printf("No snapshot was taken: this kernel cannot protect that memory.\n");
}

static int json(const struct demo *d, const char *path)
{
	struct hgm_stats stats = { .size = sizeof(stats) };
	FILE *f = fopen(path, "we");
	unsigned int i;
	int rc;

	if (!f)
		return -errno;
	hgm_get_stats(d->engine, &stats);
	fprintf(f,
		"{\n  \"kvm\": %s, \"bytes\": %llu, \"balloon_bytes\": %llu, \"unit_bytes\": "
		"%llu,\n"
		"  \"discards\": %zu, \"discarded_pages\": %llu, \"writes\": %llu,\n"
		"  \"snapshot\": %s,\n  \"rows\": [",
		d->options.machine.kvm ? "true" : "false",
		(unsigned long long)d->options.machine.length, (unsigned long long)half(d),
		(unsigned long long)d->unit, d->discards.count,
		(unsigned long long)stats.discarded_pages,
		(unsigned long long)balloon_writes(d->guest), d->snapshot ? "true" : "false");
	for (i = 0; i < d->rows; i++)
		fprintf(f,
			"%s\n    {\"phase\": \"%s\", \"us\": %.0f, \"balloon\": %llu, "
			"\"arrived\": %llu, \"memory\": %llu, \"faults\": %llu, \"huge_blocks\": "
			"%llu}",
			i ? "," : "", d->row[i].phase, d->row[i].us,
			(unsigned long long)d->row[i].balloon,
			(unsigned long long)d->row[i].arrived, (unsigned long long)d->row[i].memory,
			(unsigned long long)d->row[i].faults, (unsigned long long)d->row[i].huge);
	fprintf(f, "\n  ]\n}\n");
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && !rc)
		rc = -errno;
	return rc;
}

static int run(struct demo *d)
{
	int rc = make(d), ended;

	if (rc)
		return live_failed("the guest", rc, d->why);
	d->started_us = now_us();
	printf("%-9s %9s %9s %9s %9s %9s %9s\n", "PHASE", "TIME", "BALLOON", "ARRIVED", "HOST MIB",
	       "FAULTS", "HUGE");
	rc = live(d);
	if (rc) {
		live_failed("something is WRONG", rc, d->why);
		ended = balloon_finish(d->guest, d->why, sizeof(d->why));
		d->hangs = ended == -ETIMEDOUT;
		return EXIT_WRONG;
	}
	rc = end(d);
	if (rc)
		return live_failed("the guest's memory is WRONG", rc, d->why);
	sentences(d);
	if (d->options.json && cannot_write(d->options.json, json(d, d->options.json)))
		return EXIT_WRONG;
	return 0;
}

int demo_balloon(int argc, char **argv)
{
	static struct demo d = {
		.options = {
			.command = "demo balloon",
			.machine = {
				.length = UINT64_C(512) << 20,
				.backing = HGM_BACKING_SHMEM,
				.block = UINT64_C(2) << 20,
			},
		},
		.how = { .gbps = 1, .rtt_us = 100 },
		.fd = -1,
		.base = { .fd = -1 },
	};
	int rc = parse(&d, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	rc = run(&d);
	fflush(NULL);
	if (d.hangs)
		_exit(rc);
	balloon_destroy(d.guest);
	hgm_destroy(d.engine);
	hgm_source_destroy(d.source);
	link_destroy(d.link);
	free(d.discards.us);
	if (d.fd >= 0)
		close(d.fd);
	if (d.base.data)
		snapshot_close(&d.base);
	return rc;
}
