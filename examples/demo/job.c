/* SPDX-License-Identifier: 0BSD */
/*
 * One run of the demo: see job.h
 *
 * The core, run(), shows how a VMM uses libhgm. The rest measures.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <hgm/hgm.h>

#include "job.h"
#include "progress.h"
#include "vmm.h"

/* If nothing arrives and nothing becomes huge for this long, something hangs. */
#define PATIENCE_MS 120000 /* enough even on a busy machine */
#define LOOK_MS	    50

struct running {
	struct hgm *engine;
	struct hgm_source *source;
	struct hgm_region *region;
	struct link *link;
	struct vmm *vm;
};

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static bool fail(struct result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Record a failure, and keep the first reason. Return: always false. */
static bool fail(struct result *r, const char *format, ...)
{
	va_list args;

	if (r->outcome == JOB_FAILED)
		return false;
	r->outcome = JOB_FAILED;
	va_start(args, format);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was just started */
	vsnprintf(r->why, sizeof(r->why), format, args);
	va_end(args);
	return false;
}

uint64_t job_length(const struct job *job, uint64_t length)
{
	length = length / job->block * job->block;
	return length ? length : job->block;
}

static bool create(const struct job *job, const struct setting *setting, struct running *run,
		   struct result *r)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = r->length,
		.backing = job->kind,
		.block_bytes = job->block,
		.avoid = job->pieces == PIECES_BLOCK ? HGM_AVOID_HGM : 0,
		.map_bytes_max = job->pieces == PIECES_PAGE ? 4096 : 0,
	};
	struct hgm_opts engine_opts = {
		.size = sizeof(engine_opts),
		/* Enough for threads, but not for KVM, and needs no privilege. */
		.flags = setting->kvm ? 0 : HGM_ALLOW_USER_MODE_ONLY,
	};
	int rc;

	if (hgm_create(&run->engine, &engine_opts))
		return fail(r, "%s", hgm_errmsg());
	if (job->link) {
		rc = link_create(&run->link, setting->snapshot->data, setting->snapshot->length,
				 &setting->link);
		if (rc)
			return fail(r, "the link: %s", strerror(-rc));
		rc = link_source(&run->source, run->link);
	} else {
		rc = hgm_source_fd(&run->source, setting->snapshot->fd);
	}
	if (rc)
		return fail(r, "%s", hgm_errmsg());

	opts.source = run->source;
	rc = hgm_region_create(&run->region, run->engine, &opts);
	if (rc == -ENOMEM || rc == -EOPNOTSUPP || rc == -ENODEV) {
		r->outcome = JOB_SKIPPED;
		snprintf(r->why, sizeof(r->why), "%s", hgm_errmsg());
		return false;
	}
	if (rc)
		return fail(r, "%s", hgm_errmsg());
	rc = vmm_create(&run->vm, hgm_region_addr(run->region), r->length, setting->seed,
			setting->kvm, r->why, sizeof(r->why));
	if (rc)
		r->outcome = JOB_FAILED;
	return !rc;
}

/* Wait until all memory is present and huge. The guest runs in the meantime. */
static bool wait_complete(const struct job *job, const struct setting *setting, struct running *run,
			  struct result *r)
{
	struct hgm_progress p = { .size = sizeof(p) };
	uint64_t before = 0;
	double changed = now_ms();
	int rc;

	while ((rc = hgm_wait(run->engine, LOOK_MS)) == -ETIMEDOUT) {
		if (hgm_get_progress(run->engine, &p))
			return fail(r, "%s", hgm_errmsg());
		if (setting->terminal)
			progress_show(job->name, &p);
		if (before != p.present_bytes + p.huge_bytes) {
			before = p.present_bytes + p.huge_bytes;
			changed = now_ms();
		} else if (now_ms() - changed > PATIENCE_MS) {
			r->hangs = true;
			return fail(r, "no progress for %d s: %llu of %llu MiB present, %llu huge",
				    PATIENCE_MS / 1000, (unsigned long long)p.present_bytes >> 20,
				    (unsigned long long)p.total_bytes >> 20,
				    (unsigned long long)p.huge_bytes >> 20);
		}
	}
	if (rc)
		return fail(r, "%s", hgm_errmsg());
	return true;
}

static bool look_at(struct running *run, struct result *r)
{
	struct hgm_region_info info = { .size = sizeof(info) };

	if (hgm_region_get_info(run->region, &info))
		return fail(r, "%s", hgm_errmsg());
	r->map = info.map_bytes;
	r->block = info.block_bytes;
	r->blocks = info.blocks;
	/* Ask the page tables if possible. Leaves smaller than a block do not count. */
	if (hgm_mapped_huge(info.addr, info.length, &r->huge_bytes) ||
	    r->huge_bytes > info.huge_bytes)
		r->huge_bytes = info.huge_bytes;
	return true;
}

static bool run(const struct job *job, const struct setting *setting, struct running *run,
		struct result *r)
{
	char why[256];
	size_t length;
	double started;
	int rc;

	if (!create(job, setting, run, r))
		return false;
	if (hgm_start(run->engine))
		return fail(r, "%s", hgm_errmsg());
	started = now_ms();
	if (vmm_start(run->vm, r->why, sizeof(r->why))) {
		r->outcome = JOB_FAILED;
		return false;
	}
	if (wait_complete(job, setting, run, r)) {
		r->complete_ms = now_ms() - started;
		look_at(run, r);
	}
	if (setting->terminal)
		progress_note(job->name, "complete; the guest ends its walk");

	rc = vmm_finish(run->vm, PATIENCE_MS, why, sizeof(why));
	if (rc) {
		length = strlen(r->why);
		snprintf(r->why + length, sizeof(r->why) - length, "%s%s", length ? "; " : "", why);
		r->outcome = JOB_FAILED;
		r->hangs |= rc == -ETIMEDOUT;
	}
	return r->outcome == JOB_RAN;
}

static void check(const struct setting *setting, struct running *run, struct result *r)
{
	struct walk *walk = vmm_walk(run->vm);
	struct hgm_stats stats = { .size = sizeof(stats) };
	int cpu;

	r->checksum_ok = walk_check(walk, setting->snapshot->data, r->why, sizeof(r->why));
	if (!r->checksum_ok)
		r->outcome = JOB_FAILED;
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		if (walk_box(walk, cpu)->rounds > r->rounds)
			r->rounds = walk_box(walk, cpu)->rounds;
	}
	if (hgm_get_stats(run->engine, &stats))
		fail(r, "%s", hgm_errmsg());
	r->faults = stats.faults;
	if (stalls_collect(&r->stalls, walk, stats.faults))
		fail(r, "no memory for the stalls");
}

void job_run(const struct job *job, const struct setting *setting, struct result *r)
{
	struct running running = { 0 };

	*r = (struct result){
		.length = job_length(job, setting->length),
		.block = job->block,
	};
	if (setting->terminal)
		progress_note(job->name, "preparing memory");
	if (run(job, setting, &running, r)) {
		if (setting->terminal)
			progress_note(job->name, "comparing every byte");
		check(setting, &running, r);
	}
	if (setting->terminal)
		progress_clear();
	if (r->hangs)
		return;
	vmm_destroy(running.vm);
	hgm_destroy(running.engine); /* also destroys its regions */
	hgm_source_destroy(running.source);
	link_destroy(running.link);
}
