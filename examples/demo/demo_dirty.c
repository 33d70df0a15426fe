/* SPDX-License-Identifier: 0BSD */
/*
 * demo dirty - move a guest while it writes: pre-copy live migration by dirty tracking
 *
 * When the guest is paused, its memory is compared with what has arrived. Each page that differs
 * must have been reported as dirty. After the last round nothing may differ, and the guest
 * continues at the destination.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "demo_command.h"
#include "precopy.h"
#include "report.h"

#define LEARN_MS 300
#define USUAL_MS 1000
#define THERE_MS 300

struct demo {
	struct live_options options;
	struct precopy_opts how;
	bool huge;
	struct snapshot base;
	struct machine m;
	struct moment usual[2]; /* both ends of a second in which nothing happens */
	double write_us;
	struct precopy p;
	uint64_t there_writes;
};

static void usage(FILE *f)
{
	fprintf(f,
		"usage: demo dirty [OPTIONS]\n"
		"A guest writes all the time while its memory is sent elsewhere, round by round, "
		"until\n"
		"little is left: how much is that, what does it cost the guest, and is all of it "
		"there?\n\n");
	live_options_usage(f, "50000");
	fprintf(f, "  --gbps N        bandwidth of the imitated link, in Gb/s (10)\n"
		   "  --downtime MS   how long the guest may be paused, in milliseconds (5)\n"
		   "  --huge          leave huge mappings huge: 2 MiB are dirty at a time\n"
		   "  --sync          do not let the kernel note the writes: each is a fault\n");
}

static bool parse_number(const char *text, double least, double most, double *value)
{
	char *end;

	*value = strtod(text, &end);
	return end != text && !*end && *value >= least && *value <= most;
}

static int own_option(struct demo *d, int c)
{
	const char *command = d->options.command;
	double value;

	switch (c) {
	case 'g':
		if (!parse_number(optarg, 0.01, 10000, &d->how.gbps))
			return misused(command,
				       "--gbps wants a number from 0.01 to 10000, not '%s'",
				       optarg);
		return 0;
	case 'd':
		if (!parse_number(optarg, 0.1, 10000, &value))
			return misused(command,
				       "--downtime wants milliseconds, 0.1 to 10000, not '%s'",
				       optarg);
		d->how.downtime_us = value * 1e3;
		return 0;
	case 'u':
		d->huge = true;
		return 0;
	case 'y':
		d->how.flags |= HGM_DIRTY_SYNC;
		return 0;
	default:
		return live_option(&d->options, c);
	}
}

static int parse(struct demo *d, int argc, char **argv)
{
	static const struct option own[] = {
		{ "gbps", required_argument, NULL, 'g' },
		{ "downtime", required_argument, NULL, 'd' },
		{ "huge", no_argument, NULL, 'u' },
		{ "sync", no_argument, NULL, 'y' },
		{ 0 },
	};
	int c, rc;

	while ((c = live_getopt(argc, argv, own)) != -1) {
		if (c == 'h') {
			usage(stdout);
			return -1;
		}
		rc = own_option(d, c);
		if (rc)
			return rc;
	}
	/* A hugetlb block always becomes dirty as a whole. */
	if (!d->huge && d->options.machine.backing != HGM_BACKING_HUGETLB)
		d->how.flags |= HGM_DIRTY_EXACT;
	return live_options_end(&d->options, argc, argv);
}

static int migrate(struct demo *d)
{
	live_note("it runs, and nothing happens to it");
	usleep(LEARN_MS * 1000);
	d->write_us = machine_learn_usual(&d->m);
	moment_now(&d->usual[0], &d->m);
	usleep(USUAL_MS * 1000);
	moment_now(&d->usual[1], &d->m);
	live_note("it is sent while it runs");
	return precopy_run(&d->p, &d->m, &d->how);
}

/* The guest is paused. Check that all of its memory is at the destination. */
static int check(struct demo *d)
{
	const uint8_t *memory = hgm_region_addr(d->m.region);
	uint64_t i = 0, length = d->options.machine.length;
	struct instant_verdict v;
	int rc;

	if (d->p.missed) {
		snprintf(d->m.why, sizeof(d->m.why), "written to and not reported: %llu pages",
			 (unsigned long long)d->p.missed);
		return -EILSEQ;
	}
	if (memcmp(memory, d->p.there, length) != 0) {
		while (memory[i] == d->p.there[i])
			i++;
		snprintf(d->m.why, sizeof(d->m.why), "at offset %#llx there is %02x, not %02x",
			 (unsigned long long)i, d->p.there[i], memory[i]);
		return -EILSEQ;
	}
	rc = instant_check(&d->p.at, writer_vm_writer(d->m.vm), d->base.data, d->p.there, &v);
	if (rc)
		snprintf(d->m.why, sizeof(d->m.why), "%s", rc == -EILSEQ ? v.first : strerror(-rc));
	return rc;
}

/* Let the guest write for a while, and check all of its memory. */
static int live_there(struct demo *d, struct writer_vm *vm)
{
	struct writer *w = writer_vm_writer(vm);
	struct instant_verdict v;
	struct instant end;
	int rc, cpu;

	rc = writer_vm_set_instant(vm, &d->p.at, d->m.why, sizeof(d->m.why));
	if (!rc)
		rc = writer_vm_start(vm, d->m.why, sizeof(d->m.why));
	if (rc)
		return rc;
	usleep(THERE_MS * 1000);
	rc = writer_vm_finish(vm, d->m.why, sizeof(d->m.why));
	if (!rc)
		rc = writer_vm_get_instant(vm, &end, d->m.why, sizeof(d->m.why));
	if (rc)
		return rc;
	for (cpu = 0; cpu < GUEST_CPUS; cpu++)
		d->there_writes += end.box[cpu].sequence - d->p.at.box[cpu].sequence;
	rc = instant_check(&end, w, d->base.data, d->p.there, &v);
	if (rc)
		snprintf(d->m.why, sizeof(d->m.why), "%s", rc == -EILSEQ ? v.first : strerror(-rc));
	return rc;
}

/* Continue the guest at the destination. */
static int go_on(struct demo *d)
{
	const struct machine_opts *o = &d->options.machine;
	struct writer_vm *vm;
	int rc;

	rc = writer_vm_create(&vm, d->p.there, o->length, o->seed, o->kvm, d->m.why,
			      sizeof(d->m.why));
	if (rc)
		return rc;
	writer_vm_set_rate(vm, o->writes_per_s);
	rc = live_there(d, vm);
	if (rc == -ETIMEDOUT)
		d->m.hangs = true;
	else
		writer_vm_destroy(vm);
	return rc;
}

static void rounds(const struct precopy *p)
{
	char collect[16], sent[16];
	unsigned int i;

	printf("\n%5s %8s %9s %9s %9s %7s\n", "ROUND", "PAGES", "MIB", "COLLECT", "SEND", "MIB/S");
	for (i = 0; i < p->rounds; i++) {
		const struct precopy_round *r = &p->round[i];
		double mib = r->pages * GUEST_PAGE / 1048576.0;

		stalls_format(collect, sizeof(collect), r->collect_us);
		stalls_format(sent, sizeof(sent), r->send_us);
		printf("%5u %8llu %9.1f %9s %9s %7.0f%s\n", i, (unsigned long long)r->pages, mib,
		       collect, sent, r->send_us > 0 ? mib / r->send_us * 1e6 : 0,
		       i + 1 == p->rounds ? "   the guest is paused" : "");
	}
}

/* Print what tracking cost the guest. */
static void cost(const struct demo *d)
{
	double usual = moment_writes_per_s(&d->usual[0], &d->usual[1]);
	double tracked = moment_writes_per_s(&d->p.from, &d->p.to);
	const struct stalls *s = &d->p.stalls;
	char p50[16], p99[16], max[16];

	printf("Meanwhile the guest wrote %.0f times a second, usually %.0f: %.0f %%", tracked,
	       usual, 100 * tracked / usual);
	if (!s->count) {
		printf(".\n");
		return;
	}
	stalls_format(p50, sizeof(p50), stalls_quantile(s, 500));
	stalls_format(p99, sizeof(p99), stalls_quantile(s, 990));
	stalls_format(max, sizeof(max), stalls_quantile(s, 1000));
	printf("; %zu writes had to wait:\np50 %s, p99 %s, max %s beyond the usual %.1f us.\n",
	       s->count, p50, p99, max, d->write_us);
}

static void report(const struct demo *d)
{
	const struct precopy *p = &d->p;
	char start[16], pause[16];

	stalls_format(start, sizeof(start), p->start_us);
	stalls_format(pause, sizeof(pause), p->pause_us);
	printf("\nTracked in units of %s, %s.\n", report_bytes(p->unit), p->sentence);
	if (d->huge && p->unit == GUEST_PAGE)
		printf("--huge changed nothing: this way, or this memory, is tracked by pages.\n");
	printf("That took %s to start. ", start);
	cost(d);
	if (!p->little)
		printf("More rounds would not have helped: they did not become smaller.\n");
	printf("It was paused for %s. %llu pages were out of date at the destination then, each of "
	       "them\nreported as dirty; after the last round every byte is there.\n",
	       pause, (unsigned long long)p->stale);
	printf("The guest went on at the destination: %llu writes later each byte of its memory "
	       "is right.\n",
	       (unsigned long long)d->there_writes);
}

static int json(const struct demo *d, const char *path)
{
	const struct precopy *p = &d->p;
	FILE *f = fopen(path, "we");
	unsigned int i;
	int rc;

	if (!f)
		return -errno;
	fprintf(f,
		"{\n  \"kvm\": %s, \"bytes\": %llu, \"sync\": %s, \"unit_bytes\": %llu,\n"
		"  \"usual_writes_per_s\": %.0f, \"writes_per_s\": %.0f, \"little\": %s,\n"
		"  \"pause_us\": %.2f, \"stale\": %llu, \"missed\": %llu, \"writes_there\": %llu,\n"
		"  \"rounds\": [",
		d->options.machine.kvm ? "true" : "false",
		(unsigned long long)d->options.machine.length,
		p->flags & HGM_DIRTY_SYNC ? "true" : "false", (unsigned long long)p->unit,
		moment_writes_per_s(&d->usual[0], &d->usual[1]),
		moment_writes_per_s(&p->from, &p->to), p->little ? "true" : "false", p->pause_us,
		(unsigned long long)p->stale, (unsigned long long)p->missed,
		(unsigned long long)d->there_writes);
	for (i = 0; i < p->rounds; i++)
		fprintf(f, "%s\n    {\"pages\": %llu, \"collect_us\": %.2f, \"send_us\": %.2f}",
			i ? "," : "", (unsigned long long)p->round[i].pages, p->round[i].collect_us,
			p->round[i].send_us);
	fprintf(f, "\n  ]\n}\n");
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && !rc)
		rc = -errno;
	return rc;
}

static int run(struct demo *d)
{
	int rc = migrate(d);

	live_note(NULL);
	if (rc)
		return live_failed("the migration", rc, d->m.why);
	rounds(&d->p);
	fflush(stdout);
	rc = check(d);
	if (rc)
		return live_failed("the destination is WRONG", rc, d->m.why);
	machine_destroy(&d->m);
	rc = go_on(d);
	if (rc)
		return live_failed("the guest at the destination", rc, d->m.why);
	report(d);
	if (d->options.json && cannot_write(d->options.json, json(d, d->options.json)))
		return EXIT_WRONG;
	return 0;
}

int demo_dirty(int argc, char **argv)
{
	static struct demo d = {
		.options = {
			.command = "demo dirty",
			.machine = {
				.length = UINT64_C(512) << 20,
				.backing = HGM_BACKING_SHMEM,
				.block = UINT64_C(2) << 20,
				.writes_per_s = 50000,
			},
		},
		.how = { .gbps = 10, .downtime_us = 5000 },
	};
	int rc;

	rc = parse(&d, argc, argv);
	if (rc)
		return rc < 0 ? 0 : rc;
	rc = live_begin(&d.options, &d.base, &d.m);
	if (rc)
		return rc;
	rc = run(&d);
	fflush(NULL);
	if (d.m.hangs)
		_exit(rc);
	machine_destroy(&d.m);
	precopy_free(&d.p, d.options.machine.length);
	snapshot_close(&d.base);
	return rc;
}
