/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "fdinfo.h"
#include "kernel/sys.h"

/* Returns how many bytes were read, or -errno. */
static ssize_t read_all(int info, char *text, size_t room)
{
	size_t have = 0;
	ssize_t n;

	do {
		n = hgm_sys->pread(info, text + have, room - have, have);
		if (n > 0)
			have += (size_t)n;
	} while ((n > 0 && have < room) || n == -EINTR);
	return n < 0 ? n : (ssize_t)have;
}

int hgm_fdinfo(int fd, const char *name, char value[HGM_FDINFO_MAX])
{
	char path[40], text[HGM_FDINFO_MAX];
	size_t length = strlen(name);
	const char *line = text;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = hgm_sys->open(path, O_RDONLY);
	if (info < 0)
		return hgm_fail(info == -ENOENT ? -EBADF : info,
				"open %s: %s; the descriptor must be open, and /proc mounted", path,
				hgm_errno_name(info));
	n = read_all(info, text, sizeof(text) - 1);
	hgm_sys->close(info);
	if (n < 0)
		return hgm_fail((int)n, "read %s: %s", path, hgm_errno_name((int)n));
	text[n] = '\0';
	while (strncmp(line, name, length) != 0 || line[length] != ':') {
		line = strchr(line, '\n');
		if (!line)
			return -ENOENT;
		line++;
	}
	line += length + 1;
	line += strspn(line, " \t");
	n = (ssize_t)strcspn(line, "\n");
	memcpy(value, line, (size_t)n);
	value[n] = '\0';
	return 0;
}
