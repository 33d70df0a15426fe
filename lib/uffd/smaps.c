/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parser of /proc/self/smaps.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "kernel/sys.h"
#include "smaps.h"

/*
 * Longer than every line that is parsed, including VmFlags with all 64 flags. A longer line
 * contains a path; its beginning, the addresses, is enough.
 */
#define LINE_MAX_BYTES 256

/* The kernel returns EINTR only to a dying task. An emulated kernel may keep returning it. */
#define INTERRUPTS 16

struct parser {
	struct hgm_smaps_range *range; /* the ranges that are still ahead */
	unsigned int left;

	unsigned int touched; /* the number of ranges that the current area touches */
	bool whole;	      /* the area lies inside the first range */
	bool hm;	      /* the area has flag `hm` */
	bool beyond;	      /* the area is beyond all ranges: areas come in ascending order */

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

/*
 * Parse a number at *@text, and move *@text behind it. False if there is none, or if it is too
 * large.
 */
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
	for (unsigned int i = 0; i < p->touched && !p->hm; i++)
		p->range[i].sum.all_hm = false;
	p->touched = 0;
}

static void touch(struct hgm_smaps_range *range, uint64_t from, uint64_t to, bool whole)
{
	struct hgm_smaps *sum = &range->sum;
	uint64_t low = from > range->start ? from : range->start;
	uint64_t high = to < range->end ? to : range->end;

	sum->all_hm = !sum->areas++ || sum->all_hm;
	sum->mapped_bytes += high - low;
	sum->partial |= !whole;
}

/* "7f0000000000-7f0000200000 rw-s ...": no field name looks like this. */
static bool take_header(struct parser *p)
{
	const char *at = p->line;
	uint64_t from, to;

	if (!number(&at, 16, &from) || *at++ != '-' || !number(&at, 16, &to) || *at != ' ')
		return false;
	end_area(p);
	for (; p->left && p->range->end <= from; p->left--)
		p->range++;
	p->beyond = !p->left;
	p->whole = p->left && from >= p->range->start && to <= p->range->end;
	p->hm = false;
	for (; p->touched < p->left && p->range[p->touched].start < to; p->touched++)
		touch(&p->range[p->touched], from, to, p->whole);
	return true;
}

/* Flags are words: `hm` must not match "hmx" or "ahm". */
static void take_flags(struct parser *p, const char *at)
{
	while (*at) {
		size_t n = strcspn(at, " ");

		p->hm |= n == 2 && !memcmp(at, "hm", 2) && !(p->cut && !at[n]);
		at += n + !!at[n];
	}
	for (unsigned int i = 0; i < p->touched; i++)
		p->range[i].sum.any_hm |= p->hm;
}

static void take_field(struct parser *p)
{
	struct hgm_smaps *out = &p->range->sum;
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
	/* Match by name: the width of the columns differs between kernels. */
	for (unsigned int i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *at = p->line + strlen(fields[i].name);

		if (strncmp(p->line, fields[i].name, strlen(fields[i].name)) != 0)
			continue;
		at += strspn(at, " \t");
		if (!number(&at, 10, &kib) || strcmp(at, " kB") != 0 || kib > UINT64_MAX >> 10)
			return;
		for (unsigned int k = 0; k < p->touched; k++)
			p->range[k].sum.has_leaf_counters |= fields[i].leaf;
		if (p->whole)
			*fields[i].sum += kib << 10;
		return;
	}
}

static void take_line(struct parser *p)
{
	p->line[p->used] = '\0';
	if (!take_header(p) && p->touched)
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

int hgm_smaps_sums(struct hgm_smaps_range *range, unsigned int count)
{
	struct parser p = { .range = range, .left = count };
	unsigned int interrupts = 0;
	char buf[4096];
	ssize_t n;
	int fd;

	for (unsigned int i = 0; i < count; i++)
		range[i].sum = (struct hgm_smaps){ 0 };
	fd = hgm_sys->open("/proc/self/smaps", O_RDONLY);
	if (fd < 0)
		return fd;
	do {
		n = hgm_sys->read(fd, buf, sizeof(buf));
		if (n > 0)
			take_bytes(&p, buf, (size_t)n);
	} while ((n > 0 && !p.beyond) || (n == -EINTR && interrupts++ < INTERRUPTS));
	hgm_sys->close(fd);
	/* A last line without a newline is incomplete, and is ignored. */
	end_area(&p);
	return n < 0 ? (int)n : 0;
}

int hgm_smaps_sum(const void *addr, uint64_t len, struct hgm_smaps *out)
{
	struct hgm_smaps_range range = { .start = (uintptr_t)addr, .end = (uintptr_t)addr + len };
	int rc = range.end <= range.start ? -EINVAL : hgm_smaps_sums(&range, 1);

	*out = range.sum;
	return rc;
}
