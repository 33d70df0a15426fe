/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine on which the benches run
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench.h"

static void read_cpu(char *out, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(out, size, "unknown CPU");
	while (f && fgets(line, sizeof(line), f)) {
		char *name = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || !name)
			continue;
		name[strcspn(name, "\n")] = '\0';
		snprintf(out, size, "%s", name + 2);
		break;
	}
	if (f)
		fclose(f);
}

const struct machine *machine(void)
{
	static struct machine m;
	struct utsname name;
	cpu_set_t cpus;

	if (m.cpus)
		return &m;
	uname(&name);
	snprintf(m.kernel, sizeof(m.kernel), "%.16s %.60s", name.sysname, name.release);
	read_cpu(m.cpu, sizeof(m.cpu));
	m.memory_gib =
		(double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (double)GIB;
	sched_getaffinity(0, sizeof(cpus), &cpus);
	m.cpus = (unsigned int)CPU_COUNT(&cpus);
	return &m;
}

double machine_load(void)
{
	double load = 0;

	getloadavg(&load, 1);
	return load;
}
