/* SPDX-License-Identifier: 0BSD */
/*
 * Engine, region and virtual machine: see machine.h
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

#define PATIENCE_MS 60000

/* Keep libhgm's error text about this thread's last call. */
static int said(struct machine *m, int rc)
{
	if (rc)
		snprintf(m->why, sizeof(m->why), "%s", hgm_errmsg());
	return rc;
}

int machine_create(struct machine *m, const struct machine_opts *opts, struct hgm_source *source)
{
	struct hgm_region_opts region = {
		.size = sizeof(region),
		.length = opts->length,
		.source = source,
		.backing = opts->backing,
		.block_bytes = opts->block,
	};
	struct hgm_opts engine = {
		.size = sizeof(engine),
		/*
		 * Enough for threads, but not for KVM, and needs no privilege. The only kind of
		 * protection that works with it is asynchronous dirty tracking.
		 */
		.flags = opts->kvm ? 0 : HGM_ALLOW_USER_MODE_ONLY,
	};
	int rc;

	*m = (struct machine){ .source = source };
	rc = said(m, hgm_create(&m->engine, &engine));
	if (!rc)
		rc = said(m, hgm_region_create(&m->region, m->engine, &region));
	if (!rc)
		rc = writer_vm_create(&m->vm, hgm_region_addr(m->region), opts->length, opts->seed,
				      opts->kvm, m->why, sizeof(m->why));
	if (!rc)
		writer_vm_set_rate(m->vm, opts->writes_per_s);
	return rc;
}

int machine_start(struct machine *m, const struct instant *at)
{
	int rc = said(m, hgm_start(m->engine));

	if (!rc && at)
		rc = writer_vm_set_instant(m->vm, at, m->why, sizeof(m->why));
	if (!rc)
		rc = writer_vm_start(m->vm, m->why, sizeof(m->why));
	return rc;
}

int machine_pause(struct machine *m)
{
	int rc = writer_vm_pause(m->vm, m->why, sizeof(m->why));

	m->hangs |= rc == -ETIMEDOUT;
	return rc;
}

void machine_resume(struct machine *m)
{
	writer_vm_resume(m->vm);
}

int machine_get_instant(struct machine *m, struct instant *at)
{
	return writer_vm_get_instant(m->vm, at, m->why, sizeof(m->why));
}

int machine_write_on(struct machine *m, uint32_t records)
{
	const struct writer *w = writer_vm_writer(m->vm);
	uint32_t from[GUEST_CPUS], waited;
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++)
		from[cpu] = writer_sequence(w, cpu);
	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		for (waited = 0; writer_sequence(w, cpu) - from[cpu] < records; waited++) {
			if (waited == PATIENCE_MS) {
				snprintf(m->why, sizeof(m->why), "CPU %d does not write", cpu);
				return -ETIMEDOUT;
			}
			usleep(1000);
		}
	}
	return 0;
}

int machine_complete(struct machine *m)
{
	return said(m, hgm_wait(m->engine, PATIENCE_MS));
}

int machine_finish(struct machine *m, const uint8_t *base)
{
	struct instant_verdict v;
	struct instant end;
	int rc;

	rc = writer_vm_finish(m->vm, m->why, sizeof(m->why));
	m->hangs |= rc == -ETIMEDOUT;
	if (!rc)
		rc = machine_get_instant(m, &end);
	if (rc)
		return rc;
	rc = instant_check(&end, writer_vm_writer(m->vm), base, hgm_region_addr(m->region), &v);
	if (rc)
		snprintf(m->why, sizeof(m->why), "the guest's memory at its end: %s",
			 rc == -EILSEQ ? v.first : strerror(-rc));
	return rc;
}

void machine_destroy(struct machine *m)
{
	char ignored[200];

	if (m->hangs)
		return;
	if (m->vm && writer_vm_finish(m->vm, ignored, sizeof(ignored)) == -ETIMEDOUT)
		return;
	writer_vm_destroy(m->vm);
	hgm_destroy(m->engine); /* also destroys its region */
	hgm_source_destroy(m->source);
	*m = (struct machine){ 0 };
}
