/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Live snapshots: how long the guest is stopped, and how long its first write to a page waits
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <hgm/hgm.h>

#include "bench.h"
#include "clock.h"
#include "contents.h"
#include "memory.h"

struct arm_case {
	size_t bytes;
	bool huge;
};

static void await(sem_t *sem)
{
	while (sem_wait(sem) && errno == EINTR)
		;
}

/* A sink that blocks until it is released: the sweep stops, and everything stays protected. */
static int64_t hold(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	(void)buf;
	(void)length;
	(void)offset;
	await(user);
	return -ECANCELED;
}

struct filled {
	struct hgm *h;
	struct hgm_source *src;
	struct hgm_region *r;
	struct hgm_snapshot *snapshot;
	sem_t go;
};

static void fill(struct filled *f, size_t bytes, bool huge)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = bytes,
		.backing = HGM_BACKING_SHMEM,
		.flags = huge ? 0 : HGM_REGION_DEFER_COLLAPSE,
	};

	memory_warm(bytes);
	if (hgm_create(&f->h, NULL) || hgm_source_memory(&f->src, contents(bytes), bytes))
		die("snapshot", hgm_errmsg());
	opts.source = f->src;
	if (hgm_region_create(&f->r, f->h, &opts) || hgm_start(f->h) || hgm_wait(f->h, -1))
		die("snapshot", hgm_errmsg());
}

struct armed {
	uint64_t wall_ns; /* how long the guest is stopped */
	uint64_t cpu_ns;  /* of the calling thread */
};

static struct armed start_clock(void)
{
	return (struct armed){ now_ns(), bench_ns(CLOCK_THREAD_CPUTIME_ID) };
}

static void stop_clock(struct armed *a)
{
	a->wall_ns = now_ns() - a->wall_ns;
	a->cpu_ns = bench_ns(CLOCK_THREAD_CPUTIME_ID) - a->cpu_ns;
}

/*
 * A vCPU that has used its memory and is stopped now: the page tables are neither in this CPU's
 * cache nor all clean, and the TLB of the vCPU's CPU must be flushed.
 */
struct vcpu {
	pthread_t thread;
	const char *who;
	char *memory;
	size_t bytes;
	sem_t paused, resumed;
};

static void *use_memory(void *arg)
{
	struct vcpu *v = arg;

	contents_check(v->who, v->memory, v->bytes);
	sem_post(&v->paused);
	await(&v->resumed);
	return NULL;
}

static void vcpu_pause(struct vcpu *v, const char *who, char *memory, size_t bytes)
{
	*v = (struct vcpu){ .who = who, .memory = memory, .bytes = bytes };
	sem_init(&v->paused, 0, 0);
	sem_init(&v->resumed, 0, 0);
	if (pthread_create(&v->thread, NULL, use_memory, v))
		die("a vCPU", strerror(errno));
	await(&v->paused);
}

static void vcpu_resume(struct vcpu *v)
{
	sem_post(&v->resumed);
	pthread_join(v->thread, NULL);
	sem_destroy(&v->paused);
	sem_destroy(&v->resumed);
}

static struct armed begin(struct filled *f, size_t bytes)
{
	struct hgm_snapshot_opts opts = {
		.size = sizeof(opts), .write = hold, .user = &f->go, .fd = -1
	};
	struct armed armed;
	struct vcpu v;

	sem_init(&f->go, 0, 0);
	if (hgm_snapshot_create(&f->snapshot, f->h, &opts))
		die("snapshot", hgm_errmsg());
	vcpu_pause(&v, "snapshot", hgm_region_addr(f->r), bytes);
	armed = start_clock();
	if (hgm_snapshot_begin(f->snapshot))
		die("snapshot", hgm_errmsg());
	stop_clock(&armed);
	vcpu_resume(&v);
	return armed;
}

static void end(struct filled *f, size_t bytes)
{
	hgm_snapshot_cancel(f->snapshot);
	sem_post(&f->go);
	hgm_snapshot_destroy(f->snapshot);
	contents_check("snapshot", hgm_region_addr(f->r), bytes);
	hgm_destroy(f->h);
	hgm_source_destroy(f->src);
	sem_destroy(&f->go);
}

static void note_armed(const char *who, struct armed a)
{
	note(who, "ms", (double)a.wall_ns / 1e6);
	note(who, "cpu ms", (double)a.cpu_ns / 1e6);
}

struct raw_fill {
	struct memory *m;
	bool huge;
};

static void *raw_fill(void *arg)
{
	const struct raw_fill *f = arg;

	for (size_t at = 0; at < f->m->bytes; at += BLOCK)
		memory_install(f->m, at, BLOCK);
	if (f->huge)
		memory_collapse(f->m);
	return NULL;
}

/* As usual, not by the thread that arms: the filling thread leaves page tables in its caches. */
static void raw_fill_elsewhere(struct memory *m, bool huge)
{
	struct raw_fill f = { m, huge };
	pthread_t thread;

	if (pthread_create(&thread, NULL, raw_fill, &f))
		die("raw fill", strerror(errno));
	pthread_join(thread, NULL);
}

/* The same with UFFDIO_WRITEPROTECT in steps. */
static void raw_arm(const char *who, const struct arm_case *c, size_t step)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MINOR |
					       UFFDIO_REGISTER_MODE_WP };
	struct armed armed;
	struct memory m;
	struct vcpu v;

	memory_warm(c->bytes);
	memory_make(&m, c->bytes, MEMORY_PREPARED);
	raw_fill_elsewhere(&m, c->huge);
	reg.range = (struct uffdio_range){ (uintptr_t)m.primary, m.bytes };
	if (ioctl(m.uffd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER for write-protection", strerror(errno));
	vcpu_pause(&v, who, m.primary, m.bytes);
	armed = start_clock();
	for (size_t at = 0; at < m.bytes; at += step) {
		struct uffdio_writeprotect wp = {
			.range = { (uintptr_t)m.primary + at, step },
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};

		if (ioctl(m.uffd, UFFDIO_WRITEPROTECT, &wp))
			die("UFFDIO_WRITEPROTECT", strerror(errno));
	}
	stop_clock(&armed);
	vcpu_resume(&v);
	note_armed(who, armed);
	memory_free(&m);
}

static void hgm_arm(const struct arm_case *c)
{
	struct filled f;

	fill(&f, c->bytes, c->huge);
	note_armed("libhgm", begin(&f, c->bytes));
	end(&f, c->bytes);
}

/* Page tables are created here. All contestants but the first get warm ones. */
static void round_arm(const struct bench *b)
{
	const struct arm_case *c = b->arg;

	contents(c->bytes);
	for (size_t i = 0; i < 3; i++) {
		switch (in_turn(i, 3)) {
		case 0:
			hgm_arm(c);
			break;
		case 1:
			raw_arm("raw-2M", c, BLOCK);
			break;
		case 2:
			raw_arm("raw-128M", c, 128 * MIB);
		}
	}
}

static void rows_arm(const struct bench *b)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.time", b->name);
	compare(name, LESS, "ms", "libhgm", "ms", "raw-2M raw-128M");
	snprintf(name, sizeof(name), "%s.cpu", b->name);
	compare(name, LESS, "CPU ms", "libhgm", "cpu ms", "raw-2M raw-128M");
}

/*
 * First writes. The baseline is a write to a page that is not present yet, served by the same kind
 * of engine.
 */
#define WRITE_BYTES (64 * MIB)
#define WRITES	    2048

static void write_some(const char *who, char *memory)
{
	static float wait[WRITES];
	size_t half = WRITE_BYTES / PAGE / 2, stride = half / WRITES;

	/* Each once, in the upper half: the sweep may have passed what it offers the sink. */
	for (size_t i = 0; i < WRITES; i++) {
		size_t page = half + i * 1103 % WRITES * stride;
		volatile char *byte = memory + page * PAGE;
		uint64_t before = now_ns();

		/* Write the same byte again, so that the contents stay right. */
		*byte = contents(0)[page * PAGE];
		wait[i] = (float)(now_ns() - before) / 1000;
	}
	note_waits(who, wait, WRITES);
}

static void snapshot_writes(const char *who, bool huge)
{
	struct filled f;

	fill(&f, WRITE_BYTES, huge);
	begin(&f, WRITE_BYTES);
	write_some(who, hgm_region_addr(f.r));
	end(&f, WRITE_BYTES);
}

static void minor_writes(void)
{
	struct hgm_region_opts opts = {
		.size = sizeof(opts),
		.length = WRITE_BYTES,
		.backing = HGM_BACKING_SHMEM,
		.flags = HGM_REGION_NO_FILL | HGM_REGION_DEFER_COLLAPSE,
	};
	struct hgm_region *r;
	struct hgm *h;

	memory_warm(WRITE_BYTES);
	if (hgm_create(&h, NULL) ||
	    hgm_source_memory(&opts.source, contents(WRITE_BYTES), WRITE_BYTES) ||
	    hgm_region_create(&r, h, &opts) || hgm_start(h))
		die("minor", hgm_errmsg());
	write_some("minor", hgm_region_addr(r));
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
}

static void round_write(const struct bench *b)
{
	(void)b;
	contents(WRITE_BYTES);
	minor_writes();
	snapshot_writes("4K-mapped", false);
	snapshot_writes("huge-mapped", true);
}

static void rows_write(const struct bench *b)
{
	(void)b;
	compare("wp-fault.p50", LESS, "us", "4K-mapped", "p50", "minor");
	compare("wp-fault.p99", LESS, "us", "4K-mapped", "p99", "minor");
	compare("wp-fault.huge-p50", LESS, "us", "huge-mapped", "p50", "minor");
	compare("wp-fault.huge-p99", LESS, "us", "huge-mapped", "p99", "minor");
}

#define ARM(name, what, quick, ...)                                              \
	{                                                                        \
		name, what, quick, round_arm, rows_arm, &(const struct arm_case) \
		{                                                                \
			__VA_ARGS__                                              \
		}                                                                \
	}

const struct bench snapshot_benches[] = {
	ARM("wp-arm-huge-256m", "hgm_snapshot_begin, 256 MiB mapped huge", true, 256 * MIB, true),
	ARM("wp-arm-4k-256m", "hgm_snapshot_begin, 256 MiB mapped by 4 KiB", true, 256 * MIB,
	    false),
	ARM("wp-arm-huge-1g", "hgm_snapshot_begin, 1 GiB mapped huge", false, GIB, true),
	ARM("wp-arm-4k-1g", "hgm_snapshot_begin, 1 GiB mapped by 4 KiB", false, GIB, false),
	{ "wp-fault", "first writes to pages under a snapshot", true, round_write, rows_write,
	  NULL },
	{ NULL },
};
