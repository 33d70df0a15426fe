#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# example.sh PROGRAM HGM_PROBE: a program of a manual page must succeed, where the kernel gives what
# the programs use; else it may also fail, and counts as skipped.
set -u

"$1" && exit 0
status=$?
if { "$2" uffd.device || "$2" uffd.syscall; } &&
	"$2" anon.missing.4k shmem.minor.4k shmem.wp.4k; then
	exit "$status"
fi
echo "# skipped: this kernel, or this process, lacks what has no yes above"
exit 77
