#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# abidiff.sh LIBHGM_SO SOURCE_ROOT [--update]: compare the shared library's binary interface with
# that of the last release, libhgm.abi. With --update write libhgm.abi anew: at a release or, before
# the first one, when the interface has changed on purpose.
set -eu

library=$1
here=$2/test/abi

skip() {
	echo "# skipped: $1"
	exit 77
}

command -v abidiff >/dev/null || skip "no abidiff here (abigail-tools)"
readelf --section-headers --wide "$library" | grep -q ' \.debug_info ' ||
	skip "the library was built without debug information"
readelf --file-header "$library" | grep -q 'Machine:.*X86-64' ||
	skip "libhgm.abi is of x86-64, and the library is not"

if [ "${3:-}" = --update ]; then
	abidw --exported-interfaces-only --no-comp-dir-path --no-corpus-path --no-elf-needed \
		--type-id-style hash --out-file "$here/libhgm.abi" "$library"
	exit
fi

# New functions are no change for programs that exist.
abidiff --exported-interfaces-only --suppressions "$here/suppressions" --no-added-syms \
	"$here/libhgm.abi" "$library"
