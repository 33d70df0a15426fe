/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "smaps.h"
#include "sys.h"

/*
 * Longer than every line that is looked at, VmFlags with all of 64 flags included. What is longer
 * is a path: its beginning, the addresses, is enough.
 */
#define LINE_MAX_BYTES 256

/* The kernel says EINTR to the dying only; somebody else's idea of a kernel may go on with it. */
#define INTERRUPTS 16

struct parser {
	uint64_t start; /* the range */
	uint64_t end;
	struct hgm_smaps *out;

	bool inside; /* the area that is being read touches the range, */
	bool whole;  /* and lies in it */
	bool hm;     /* and has been seen to be marked */
	bool beyond; /* areas come in ascending order: no more of them */

	char line[LINE_MAX_BYTES];
	unsigned int used;
	bool cut;
};

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A number at *@text, which is moved behind it; false if there is none, or it is too large. */
static bool number(const char **text, unsigned int base, uint64_t *value)
{
	const char *at = *text;
	int digit = digit_of(*at);

	*value = 0;
	for (; digit >= 0 && (unsigned int)digit < base; digit = digit_of(*++at))
		if (__builtin_mul_overflow(*value, base, value) ||
		    __builtin_add_overflow(*value, (unsigned int)digit, value))
			return false;
	if (at == *text)
		return false;
	*text = at;
	return true;
}

static void end_area(struct parser *p)
{
	if (p->inside && !p->hm)
		p->out->all_hm = false;
	p->inside = false;
}

/* "7f0000000000-7f0000200000 rw-s ...": no field's name looks like that. */
static bool take_header(struct parser *p)
{
	const char *at = p->line;
	uint64_t from, to, low, high;

	if (!number(&at, 16, &from) || *at++ != '-' || !number(&at, 16, &to) || *at != ' ')
		return false;
	end_area(p);
	low = from > p->start ? from : p->start;
	high = to < p->end ? to : p->end;
	p->beyond = from >= p->end;
	p->inside = low < high;
	p->whole = from >= p->start && to <= p->end;
	p->hm = false;
	if (p->inside) {
		p->out->all_hm = !p->out->areas++ || p->out->all_hm;
		p->out->mapped_bytes += high - low;
		p->out->partial |= !p->whole;
	}
	return true;
}

/* Flags are words: `hm` is none of "hmx", "ahm". */
static void take_flags(struct parser *p, const char *at)
{
	while (*at) {
		size_t n = strcspn(at, " ");

		if (n == 2 && !memcmp(at, "hm", 2) && !(p->cut && !at[n]))
			p->hm = p->out->any_hm = true;
		at += n + !!at[n];
	}
}

static void take_field(struct parser *p)
{
	struct hgm_smaps *out = p->out;
	const struct {
		const char *name;
		uint64_t *sum;
		bool leaf;
	} fields[] = {
		{ "HugetlbPudMapped:", &out->pud, true }, { "HugetlbPmdMapped:", &out->pmd, true },
		{ "HugetlbPteMapped:", &out->pte, true }, { "ShmemPmdMapped:", &out->shmem_pmd },
		{ "AnonHugePages:", &out->anon_huge },	  { "Private_Hugetlb:", &out->hugetlb },
		{ "Shared_Hugetlb:", &out->hugetlb },
	};
	uint64_t kib;

	if (!strncmp(p->line, "VmFlags:", 8)) {
		take_flags(p, p->line + 8);
		return;
	}
	/* By name: the width of the columns is not the same in all kernels. */
	for (unsigned int i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *at = p->line + strlen(fields[i].name);

		if (strncmp(p->line, fields[i].name, strlen(fields[i].name)) != 0)
			continue;
		at += strspn(at, " \t");
		if (!number(&at, 10, &kib) || strcmp(at, " kB") != 0 || kib > UINT64_MAX >> 10)
			return;
		out->has_leaf_counters |= fields[i].leaf;
		if (p->whole)
			*fields[i].sum += kib << 10;
		return;
	}
}

static void take_line(struct parser *p)
{
	p->line[p->used] = '\0';
	if (!take_header(p) && p->inside)
		take_field(p);
	p->used = 0;
	p->cut = false;
}

static void take_bytes(struct parser *p, const char *buf, size_t n)
{
	for (size_t i = 0; i < n && !p->beyond; i++) {
		if (buf[i] == '\n')
			take_line(p);
		else if (p->used < LINE_MAX_BYTES - 1)
			p->line[p->used++] = buf[i];
		else
			p->cut = true;
	}
}

int hgm_smaps_sum(const void *addr, uint64_t len, struct hgm_smaps *out)
{
	struct parser p = { .start = (uintptr_t)addr, .end = (uintptr_t)addr + len, .out = out };
	unsigned int interrupts = 0;
	char buf[4096];
	ssize_t n;
	int fd;

	*out = (struct hgm_smaps){ 0 };
	if (p.end <= p.start)
		return -EINVAL;
	fd = hgm_sys->open("/proc/self/smaps", O_RDONLY);
	if (fd < 0)
		return fd;
	do {
		n = hgm_sys->read(fd, buf, sizeof(buf));
		if (n > 0)
			take_bytes(&p, buf, (size_t)n);
	} while ((n > 0 && !p.beyond) || (n == -EINTR && interrupts++ < INTERRUPTS));
	hgm_sys->close(fd);
	/* A last line without its newline is not whole, and not taken. */
	end_area(&p);
	return n < 0 ? (int)n : 0;
}
