/* SPDX-License-Identifier: 0BSD */
/*
 * The check that a copy of memory is of one instant: see instant.h
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instant.h"

#define WORDS __attribute__((aligned(4)))

enum kind {
	NEWER,
	OLDER,
	TORN,
	OTHER
};

void instant_take(struct instant *at, const struct writer *w, bool ended)
{
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		at->box[cpu] = *writer_box(w, cpu);
		at->page[cpu] = INSTANT_NO_PAGE;
		if (ended)
			continue;
		at->page[cpu] = writer_page(w, cpu, at->box[cpu].sequence + 1);
		memcpy(at->writing[cpu], w->memory + (uint64_t)at->page[cpu] * GUEST_PAGE,
		       GUEST_PAGE);
	}
}

/* Compute what a page holds after its write @sequence; 0 means before the first write. */
static void page_after(uint8_t *page, const uint8_t *base, uint32_t number, uint32_t sequence)
{
	memcpy(page, base, GUEST_PAGE);
	if (sequence)
		writer_record(page, number, sequence);
}

static uint32_t word_of(const uint8_t *page, int i)
{
	uint32_t word;

	memcpy(&word, page + (size_t)i * RECORD_STRIDE, sizeof(word));
	return word;
}

static bool same_but_for_records(const uint8_t *a, const uint8_t *b)
{
	uint8_t x[GUEST_PAGE] WORDS, y[GUEST_PAGE] WORDS;

	memcpy(x, a, GUEST_PAGE);
	memcpy(y, b, GUEST_PAGE);
	writer_record(x, 0, 0);
	writer_record(y, 0, 0);
	return !memcmp(x, y, GUEST_PAGE);
}

/*
 * Classify a page that is not what it must be. Its second word is the sequence number. In a page
 * without a record this is a word of @base.
 */
static enum kind kind_of(const uint8_t *page, const uint8_t *expected, const uint8_t *base,
			 uint32_t number, uint32_t sequence, uint32_t *found)
{
	uint8_t whole[GUEST_PAGE] WORDS;

	*found = word_of(page, 1);
	if (*found == word_of(base, 1) && !memcmp(page, base, GUEST_PAGE))
		*found = 0;
	page_after(whole, base, number, *found);
	if (!memcmp(page, whole, GUEST_PAGE))
		return *found > sequence ? NEWER : OLDER;
	return same_but_for_records(page, expected) ? TORN : OTHER;
}

static void note(struct instant_verdict *v, enum kind kind, uint32_t number, uint32_t sequence,
		 uint32_t found, const uint8_t *page)
{
	uint64_t *const counts[] = { &v->newer, &v->older, &v->torn, &v->other };
	bool first = !(v->newer + v->older + v->torn + v->other);

	++*counts[kind];
	if (!first)
		return;
	if (kind == NEWER || kind == OLDER)
		snprintf(v->first, sizeof(v->first),
			 "page %u is %s than the instant: it holds write %u, not %u", number,
			 kind == NEWER ? "newer" : "older", found, sequence);
	else
		snprintf(v->first, sizeof(v->first),
			 "page %u is %s: its record begins with %#x %#x and ends with %#x; it was "
			 "write %u",
			 number, kind == TORN ? "torn" : "something else", word_of(page, 0),
			 word_of(page, 1), word_of(page, RECORD_WORDS - 1), sequence);
}

static const uint8_t *being_written(const struct instant *at, uint32_t number)
{
	int cpu;

	for (cpu = 0; cpu < GUEST_CPUS; cpu++) {
		if (at->page[cpu] == number)
			return at->writing[cpu];
	}
	return NULL;
}

int instant_check(const struct instant *at, const struct writer *w, const uint8_t *base,
		  const uint8_t *copy, struct instant_verdict *v)
{
	uint32_t sequence[GUEST_CPUS], *last, number, found;
	uint8_t expected[GUEST_PAGE] WORDS;
	const uint8_t *writing;
	enum kind kind;
	int cpu;

	*v = (struct instant_verdict){ 0 };
	for (cpu = 0; cpu < GUEST_CPUS; cpu++)
		sequence[cpu] = at->box[cpu].sequence;
	last = writer_last(w, sequence);
	if (!last)
		return -ENOMEM;
	for (number = 0; number < w->length / GUEST_PAGE; number++) {
		writing = being_written(at, number);
		if (writing)
			memcpy(expected, writing, GUEST_PAGE);
		else
			page_after(expected, base, number, last[number]);
		if (memcmp(copy, expected, GUEST_PAGE) != 0) {
			kind = kind_of(copy, expected, base, number, last[number], &found);
			note(v, kind, number, last[number], found, copy);
		}
		base += GUEST_PAGE;
		copy += GUEST_PAGE;
	}
	free(last);
	return v->newer + v->older + v->torn + v->other ? -EILSEQ : 0;
}
