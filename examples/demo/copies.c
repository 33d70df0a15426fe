/* SPDX-License-Identifier: 0BSD */
/*
 * Writing the memory of a guest to a file: see copies.h
 *
 * copy_live() shows how a VMM takes a snapshot with libhgm. The rest measures and compares.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copies.h"
#include "snapshot.h"

#define CHUNK (UINT64_C(1) << 20)

#define POOL (UINT64_C(64) << 20)

/* Records to write before copying a running guest, so that the copy cannot be of the instant. */
#define HEAD_START 64

static int failed(struct machine *m, int rc, const char *what)
{
	snprintf(m->why, sizeof(m->why), "%s: %s", what, strerror(-rc));
	return rc;
}

static int begin(struct copy *c, struct machine *m)
{
	char path[PATH_MAX];

	*c = (struct copy){ 0 };
	c->fd = snapshot_file(path, hgm_region_length(m->region), m->why, sizeof(m->why));
	if (c->fd < 0)
		return c->fd;
	unlink(path); /* the file goes away with its descriptor, however this program ends */
	return 0;
}

/* A write that had to wait either faulted, or its CPU was paused. */
static int end(struct copy *c, struct machine *m)
{
	moment_now(&c->to, m);
	return moment_stalls(&c->stalls, m, &c->from, &c->to,
			     c->to.faults - c->from.faults + (c->paused_us > 0 ? GUEST_CPUS : 0));
}

static int live(struct copy *c, struct machine *m, struct hgm_snapshot *s, uint8_t *proof)
{
	struct hgm_snapshot_progress p = { .size = sizeof(p) };
	struct moment resumed;
	int rc;

	moment_now(&c->from, m);
	rc = machine_pause(m);
	if (!rc)
		rc = machine_get_instant(m, &c->at);
	if (rc)
		return rc;
	if (proof)
		memcpy(proof, hgm_region_addr(m->region), hgm_region_length(m->region));
	rc = hgm_snapshot_begin(s);
	machine_resume(m);
	moment_now(&resumed, m);
	c->paused_us = resumed.us - c->from.us;

	if (!rc)
		rc = hgm_snapshot_wait(s, -1);
	if (!rc)
		rc = hgm_snapshot_get_progress(s, &p);
	if (rc)
		snprintf(m->why, sizeof(m->why), "%s", hgm_errmsg());
	c->protected_us = p.begin_ns / 1e3;
	c->copied = p.copied_bytes;
	return rc;
}

int copy_live(struct copy *c, struct machine *m, uint8_t *proof)
{
	struct hgm_snapshot_opts opts = { .size = sizeof(opts), .pool_bytes = POOL };
	struct hgm_region_info info = { .size = sizeof(info) };
	struct hgm_snapshot *s;
	int rc = begin(c, m);

	if (rc)
		return rc;
	opts.fd = c->fd;
	rc = hgm_region_get_info(m->region, &info);
	if (info.protect_bytes > opts.pool_bytes)
		opts.pool_bytes = info.protect_bytes; /* blocks of 1 GiB are copied as a whole */
	if (!rc)
		rc = hgm_snapshot_create(&s, m->engine, &opts);
	if (rc) {
		snprintf(m->why, sizeof(m->why), "%s", hgm_errmsg());
		return rc;
	}
	rc = live(c, m, s, proof);
	if (!rc)
		rc = end(c, m);
	hgm_snapshot_destroy(s);
	return rc;
}

static int write_all(const struct copy *c, struct machine *m)
{
	const uint8_t *memory = hgm_region_addr(m->region);
	uint64_t length = hgm_region_length(m->region), offset = 0, n;
	ssize_t done;

	while (offset < length) {
		n = length - offset < CHUNK ? length - offset : CHUNK;
		done = pwrite(c->fd, memory + offset, n, (off_t)offset);
		if (done < 0)
			return failed(m, -errno, "the file");
		offset += done;
	}
	return 0;
}

int copy_stopped(struct copy *c, struct machine *m)
{
	struct moment resumed;
	int rc = begin(c, m);

	if (rc)
		return rc;
	moment_now(&c->from, m);
	rc = machine_pause(m);
	if (!rc)
		rc = machine_get_instant(m, &c->at);
	if (!rc)
		rc = write_all(c, m);
	moment_now(&c->to, m);
	machine_resume(m);
	moment_now(&resumed, m);
	c->paused_us = resumed.us - c->from.us;
	if (rc)
		return rc;
	/* The log shows the cost of the pause only after the interrupted writes have ended. */
	rc = machine_write_on(m, 1);
	if (!rc) {
		moment_now(&resumed, m);
		rc = moment_stalls(&c->stalls, m, &c->from, &resumed, GUEST_CPUS);
	}
	return rc;
}

int copy_running(struct copy *c, struct machine *m, const struct copy *over)
{
	int rc;

	*c = (struct copy){ .fd = fcntl(over->fd, F_DUPFD_CLOEXEC, 0) };
	if (c->fd < 0)
		return failed(m, -errno, "the file");
	rc = machine_pause(m);
	if (!rc)
		rc = machine_get_instant(m, &c->at);
	if (rc)
		return rc;
	machine_resume(m);
	rc = machine_write_on(m, HEAD_START);
	moment_now(&c->from, m);
	if (!rc)
		rc = write_all(c, m);
	if (!rc)
		rc = end(c, m);
	return rc;
}

/* Map the file. */
static const uint8_t *map(const struct copy *c, struct machine *m, int *rc)
{
	uint64_t length = hgm_region_length(m->region);
	struct stat st;
	void *data;

	if (fstat(c->fd, &st)) {
		*rc = failed(m, -errno, "the file");
		return NULL;
	}
	if ((uint64_t)st.st_size != length) {
		snprintf(m->why, sizeof(m->why), "the file has %llu bytes, not %llu",
			 (unsigned long long)st.st_size, (unsigned long long)length);
		*rc = -EILSEQ;
		return NULL;
	}
	data = mmap(NULL, length, PROT_READ, MAP_SHARED, c->fd, 0);
	*rc = data == MAP_FAILED ? failed(m, -errno, "the file") : 0;
	return *rc ? NULL : data;
}

int copy_check(struct copy *c, struct machine *m, const uint8_t *base)
{
	int rc;
	const uint8_t *data = map(c, m, &rc);

	if (rc)
		return rc;
	rc = instant_check(&c->at, writer_vm_writer(m->vm), base, data, &c->verdict);
	munmap((void *)data, hgm_region_length(m->region));
	c->one_instant = !rc;
	return rc == -EILSEQ ? 0 : rc;
}

int copy_compare(const struct copy *c, struct machine *m, const uint8_t *memory)
{
	uint64_t length = hgm_region_length(m->region), i;
	int rc;
	const uint8_t *data = map(c, m, &rc);

	if (rc)
		return rc;
	if (memcmp(data, memory, length) != 0) {
		for (i = 0; data[i] == memory[i]; i++)
			;
		snprintf(m->why, sizeof(m->why),
			 "the file is not what memory was: offset %#llx has %02x, not %02x",
			 (unsigned long long)i, data[i], memory[i]);
		rc = -EILSEQ;
	}
	munmap((void *)data, length);
	return rc;
}

void copy_free(struct copy *c)
{
	stalls_free(&c->stalls);
	if (c->fd > 0)
		close(c->fd);
	c->fd = 0;
}
