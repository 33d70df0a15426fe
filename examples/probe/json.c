/* SPDX-License-Identifier: 0BSD */
/*
 * The findings as JSON. hgm-probe(1) describes the keys, so they must not change.
 */
#include <inttypes.h>
#include <stdio.h>
#include <sys/utsname.h>

#include <hgm/version.h>

#include "probe.h"

/* Texts are ASCII, except those from kernel files. Other bytes are shown as U+00XX. */
static void print_string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || *c >= 0x7f)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void print_member(const char *indent, const char *key, const char *text)
{
	printf("%s", indent);
	print_string(key);
	printf(": ");
	if (text)
		print_string(text);
	else
		printf("null");
}

static void print_backing(const struct backing *b, bool last)
{
	print_member("    { ", "name", b->name);
	print_member(", ", "answer", answer_text(b->answer));
	printf(", \"fault_bytes\": %" PRIu64, b->fault_bytes);
	print_member(", ", "huge_by", b->huge_by);
	print_member(",\n      ", "capability", b->says ? b->says->name : NULL);
	print_member(", ", "reason", b->says ? b->says->reason : NULL);
	printf(" }%s\n", last ? "" : ",");
}

static void print_capability(const struct hgm_cap *cap, bool first)
{
	print_member(first ? "\n    { " : ",\n    { ", "name", cap->name);
	print_member(", ", "answer", answer_text(cap->answer));
	printf(", \"value\": %" PRIu64, cap->value);
	print_member(",\n      ", "reason", cap->reason);
	print_member(", ", "help", *help_for(cap) ? help_for(cap) : NULL);
	printf(" }");
}

void print_json(const struct findings *f, char *const *names, int count, int status)
{
	unsigned int version = hgm_version();
	struct utsname uts = { 0 };
	bool first = true;

	uname(&uts);
	printf("{\n  \"schema\": 1,\n  \"library\": \"%u.%u.%u\",\n", version >> 16,
	       version >> 8 & 0xff, version & 0xff);
	print_member("  ", "kernel", uts.release);
	print_member(",\n  ", "machine", uts.machine);
	printf(",\n  \"proved\": %s,\n", f->proved ? "true" : "false");
	printf("  \"user_mode_only\": %s,\n", f->user_mode_only ? "true" : "false");
	printf("  \"status\": %d,\n", status);
	print_member("  ", "best", f->best ? f->best->name : NULL);
	printf(",\n  \"backings\": [\n");
	for (int i = 0; i < BACKINGS; i++)
		print_backing(&f->backings[i], i == BACKINGS - 1);
	printf("  ],\n  \"capabilities\": [");
	for (unsigned int i = 0; !count && i < hgm_caps_count(f->caps); i++, first = false)
		print_capability(hgm_caps_at(f->caps, i), first);
	for (int i = 0; i < count; i++, first = false)
		print_capability(hgm_caps_find(f->caps, names[i]), first);
	printf("%s]\n}\n", first ? "" : "\n  ");
}
