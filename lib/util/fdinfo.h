/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc/self/fdinfo tells of a descriptor.
 */
#ifndef HGM_LIB_FDINFO_H
#define HGM_LIB_FDINFO_H

#define HGM_FDINFO_MAX 1024

/*
 * Read the value of the line "@name:". -ENOENT without text: there is no such line, so the
 * descriptor is of another kind. -EBADF, others, with text: it cannot be read.
 */
int hgm_fdinfo(int fd, const char *name, char value[HGM_FDINFO_MAX]);

#endif
