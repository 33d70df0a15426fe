/* SPDX-License-Identifier: 0BSD */
/*
 * demo snapshot - save all memory as it was at one instant, while a guest writes to it
 *
 * The same memory is written to a file three times: by a live snapshot, while the guest is stopped,
 * and while the guest runs. Each file is compared, byte for byte, with what the writes up to the
 * instant must have left. The third file cannot pass this check. Then a second guest continues from
 * the first file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "demo_command.h"
#include "snapshot_report.h"

#define LEARN_MS  300
#define USUAL_MS  1000
#define SECOND_MS 500

struct demo {
	struct live_options options;
	bool prove;
	struct snapshot base;
	struct machine m;
	struct snapshot_result r;
};

static void usage(FILE *f)
{
	fprintf(f, "usage: demo snapshot [OPTIONS]\n"
		   "A guest writes all the time while its memory is written to a file as it was at "
		   "one\n"
		   "instant: how long does it have to wait, and is the file right?\n\n");
	live_options_usage(f, "as fast as it goes");
	fprintf(f, "  --prove         compare the file also with a copy made while the guest stood "
		   "still\n");
}

static int parse(struct demo *d, int argc, char **argv)
{
	static const struct option own[] = { { "prove", no_argument, NULL, 'p' }, { 0 } };
	int c, rc;

	while ((c = live_getopt(argc, argv, own)) != -1) {
		if (c == 'h') {
			usage(stdout);
			return -1;
		}
		if (c == 'p') {
			d->prove = true;
			continue;
		}
		rc = live_option(&d->options, c);
		if (rc)
			return rc;
	}
	return live_options_end(&d->options, argc, argv);
}

/* Measure how long a write takes, and how many there are, while nothing else happens. */
static int measure_usual(struct demo *d)
{
	usleep(LEARN_MS * 1000);
	d->r.write_us = machine_learn_usual(&d->m);
	moment_now(&d->r.usual[0], &d->m);
	usleep(USUAL_MS * 1000);
	moment_now(&d->r.usual[1], &d->m);
	return moment_stalls(&d->r.noise, &d->m, &d->r.usual[0], &d->r.usual[1], UINT64_MAX);
}

static int take_live(struct demo *d)
{
	uint64_t length = d->options.machine.length;
	uint8_t *proof = d->prove ? malloc(length) : NULL;
	struct moment huge;
	int rc;

	if (proof)
		memset(proof, 1, length); /* touch the copy before the guest is paused */
	rc = d->prove && !proof ? -ENOMEM : copy_live(&d->r.copy[LIVE], &d->m, proof);

	if (!rc)
		rc = machine_complete(&d->m);
	moment_now(&huge, &d->m);
	d->r.huge_us = huge.us - d->r.copy[LIVE].to.us;
	if (!rc && proof)
		rc = copy_compare(&d->r.copy[LIVE], &d->m, proof);
	free(proof);
	return rc;
}

/* Run the first guest, and make all three copies of its memory. */
static int first_guest(struct demo *d)
{
	int rc;

	live_note("it runs, and nothing happens to it");
	rc = measure_usual(d);
	live_note(snapshot_names[LIVE]);
	if (!rc)
		rc = take_live(d);
	live_note(snapshot_names[STOPPED]);
	if (!rc)
		rc = copy_stopped(&d->r.copy[STOPPED], &d->m);
	if (!rc)
		rc = copy_check(&d->r.copy[STOPPED], &d->m, d->base.data);
	live_note(snapshot_names[RUNNING]);
	if (!rc)
		rc = copy_running(&d->r.copy[RUNNING], &d->m, &d->r.copy[STOPPED]);
	live_note("comparing every byte");
	if (!rc)
		rc = machine_finish(&d->m, d->base.data);
	if (!rc)
		rc = copy_check(&d->r.copy[LIVE], &d->m, d->base.data);
	if (!rc)
		rc = copy_check(&d->r.copy[RUNNING], &d->m, d->base.data);
	return rc;
}

/* Run a second guest from the first file. It continues where the first was at the instant. */
static int second_guest(struct demo *d)
{
	const struct instant *at = &d->r.copy[LIVE].at;
	struct moment from, to;
	struct hgm_source *source;
	int rc = hgm_source_fd(&source, d->r.copy[LIVE].fd), cpu;

	if (rc) {
		snprintf(d->m.why, sizeof(d->m.why), "%s", hgm_errmsg());
		return rc;
	}
	rc = machine_create(&d->m, &d->options.machine, source);
	moment_now(&from, &d->m);
	if (!rc)
		rc = machine_start(&d->m, at);
	if (!rc)
		rc = machine_write_on(&d->m, 1);
	moment_now(&to, &d->m);
	d->r.second_first_us = to.us - from.us;
	if (!rc)
		rc = machine_complete(&d->m);
	moment_now(&to, &d->m);
	d->r.second_complete_us = to.us - from.us;
	if (!rc) {
		usleep(SECOND_MS * 1000);
		rc = machine_finish(&d->m, d->base.data);
	}
	moment_now(&to, &d->m);
	for (cpu = 0; cpu < GUEST_CPUS; cpu++)
		d->r.second_writes += to.writes[cpu] - at->box[cpu].sequence;
	return rc;
}

/* Check the verdicts on the files. */
static int judge(const struct demo *d)
{
	int i;

	for (i = 0; i < COPIES; i++) {
		if (d->r.copy[i].one_instant == (i != RUNNING))
			continue;
		return live_failed(snapshot_names[i], -EILSEQ,
				   i == RUNNING ? "the check is blind: it found nothing in a copy "
						  "of memory that was being written to"
						: d->r.copy[i].verdict.first);
	}
	return 0;
}

static int run(struct demo *d)
{
	int rc = first_guest(d);

	d->r.kvm = d->options.machine.kvm;
	d->r.length = d->options.machine.length;
	d->r.proved = d->prove;
	live_note(NULL);
	if (rc)
		return live_failed("the first guest", rc, d->m.why);
	snapshot_table(&d->r);
	rc = judge(d);
	if (rc)
		return rc;
	machine_destroy(&d->m);
	live_note("a second guest goes on from the live snapshot");
	rc = second_guest(d);
	live_note(NULL);
	if (rc)
		return live_failed("the second guest", rc, d->m.why);
	snapshot_sentences(&d->r);
	if (d->options.json && cannot_write(d->options.json, snapshot_json(&d->r, d->options.json)))
		return EXIT_WRONG;
	return 0;
}

int demo_snapshot(int argc, char **argv)
{
	static struct demo d = {
		.options = {
			.command = "demo snapshot",
			.machine = {
				.length = UINT64_C(512) << 20,
				.backing = HGM_BACKING_SHMEM,
				.block = UINT64_C(2) << 20,
			},
		},
	};
	int rc, i;

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
	for (i = 0; i < COPIES; i++)
		copy_free(&d.r.copy[i]);
	stalls_free(&d.r.noise);
	snapshot_close(&d.base);
	return rc;
}
