/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sized structs of the public interface. They grow at the end, and neither side may read what the
 * other does not know.
 */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "opts.h"

/* Larger than any struct will ever be: a larger size is garbage, not a newer release. */
#define OPTS_SIZE_MAX 4096

static int check_size(size_t size, size_t min_size, const char *function)
{
	if (size >= min_size && size <= OPTS_SIZE_MAX)
		return 0;
	return hgm_fail(-EINVAL,
			"%s: the struct's size field is %zu%s; set it to sizeof the struct "
			"and zero the rest",
			function, size,
			!size		  ? ""
			: size < min_size ? ", less than in any release"
					  : ", as if it had not been set");
}

int hgm_opts_in(void *own, size_t own_size, size_t min_size, const void *user, const char *function)
{
	const unsigned char *bytes = user;
	size_t size;
	int rc;

	memset(own, 0, own_size);
	memcpy(own, &own_size, sizeof(own_size));
	if (!user)
		return 0;
	memcpy(&size, user, sizeof(size));
	rc = check_size(size, min_size, function);
	if (rc)
		return rc;
	for (size_t i = own_size; i < size; i++)
		if (bytes[i])
			return hgm_fail(-E2BIG,
					"%s: an option at byte %zu is from a newer libhgm than the "
					"one in use; update the library or leave it out",
					function, i);
	memcpy((char *)own + sizeof(size), bytes + sizeof(size),
	       (size < own_size ? size : own_size) - sizeof(size));
	return 0;
}

int hgm_opts_out(void *user, const void *own, size_t own_size, size_t min_size,
		 const char *function)
{
	size_t size;
	int rc;

	if (!user)
		return hgm_fail(-EINVAL, "%s: the struct to fill in is NULL", function);
	memcpy(&size, user, sizeof(size));
	rc = check_size(size, min_size, function);
	if (rc)
		return rc;
	memset((char *)user + sizeof(size), 0, size - sizeof(size));
	memcpy((char *)user + sizeof(size), (const char *)own + sizeof(size),
	       (size < own_size ? size : own_size) - sizeof(size));
	return 0;
}

int hgm_opts_pages(uint64_t all, uint64_t first, uint64_t pages, const char *function)
{
	if (first % 64 || first > all || pages > all - first)
		return hgm_fail(-EINVAL,
				"%s: pages [%llu, +%llu) of %llu: the range is not inside, or its "
				"first page is not a multiple of 64",
				function, (unsigned long long)first, (unsigned long long)pages,
				(unsigned long long)all);
	return 0;
}
