/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The binary interface: sizes, offsets and values that programs were compiled with. A difference
 * from abi_numbers.h does not compile. The test reads the headers to find what is missing there.
 */
#include <dirent.h>
#include <stdbool.h>
#include <string.h>

#include <hgm/hgm.h>
#include <hgm/nbd.h>

#include "test.h"

#if UINTPTR_MAX == UINT64_MAX
#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "size of " #type);
#define AT(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), "place of " #type "." #member);
#define IS(name, value) _Static_assert((name) == (value), "value of " #name);
#include "abi_numbers.h"
#undef SIZE
#undef AT
#undef IS
#endif

static const char *const structs[] = {
#define SIZE(type, bytes) #type,
#define AT(type, member, offset)
#define IS(name, value)
#include "abi_numbers.h"
#undef SIZE
#undef AT
#undef IS
};

static const char *const constants[] = {
#define SIZE(type, bytes)
#define AT(type, member, offset)
#define IS(name, value) #name,
#include "abi_numbers.h"
#undef SIZE
#undef AT
#undef IS
};

static bool listed(const char *const *list, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

/* The only numbers that may differ from release to release. */
static bool tells_the_release(const char *name)
{
	return !strncmp(name, "HGM_VERSION_", 12) || !strncmp(name, "HGM_HAVE_", 9);
}

/* What a line of a header defines: 's' a struct, 'c' a constant, 0 nothing with a number. */
static char defines(const char *line, char name[64])
{
	char after[8] = "";

	if (sscanf(line, "struct %63[a-z0-9_] %1[{]", name, after) == 2)
		return 's';
	if (sscanf(line, "\t%63[A-Z0-9_] %1[=]", name, after) == 2)
		return 'c';
	/* A macro with a value: not an include guard, a macro with arguments or an annotation. */
	if (sscanf(line, "#define %63[A-Z0-9_]%*[ \t]%7[A-Z0-9(]", name, after) == 2)
		return tells_the_release(name) ? 0 : 'c';
	return 0;
}

static unsigned int check_header(const char *path)
{
	FILE *file = fopen(path, "r");
	unsigned int found = 0;
	char line[200], name[64];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		char kind = defines(line, name);

		if (!kind)
			continue;
		found++;
		if (kind == 's'
			    ? !listed(structs, sizeof(structs) / sizeof(structs[0]), name)
			    : !listed(constants, sizeof(constants) / sizeof(constants[0]), name))
			fail_msg("%s: %s is not in abi_numbers.h", path, name);
	}
	fclose(file);
	return found;
}

static void every_number_is_written_down(void **state)
{
	DIR *dir = opendir(INCLUDE_DIR);
	const struct dirent *entry;
	unsigned int found = 0;
	char path[1000];

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');

		/* The kernel's numbers are checked against the kernel's headers. */
		if (!dot || strcmp(dot, ".h") != 0 || !strcmp(entry->d_name, "uapi.h"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", INCLUDE_DIR, entry->d_name);
		found += check_header(path);
	}
	closedir(dir);
	assert_int_equal(found, sizeof(structs) / sizeof(structs[0]) +
					sizeof(constants) / sizeof(constants[0]));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(every_number_is_written_down),
};

TEST_MAIN(tests)
