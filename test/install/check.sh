#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# check.sh BUILDDIR PROGRAM INCLUDEDIR COMPILER...: install into a scratch directory, then build PROGRAM
# against that with nothing but pkg-config's words, shared, static, and as a whole static where the
# system has the libraries for that, and run it.
set -eu

build=$1
program=$2
include=$3
shift 3

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

meson install -C "$build" --no-rebuild --quiet --destdir "$stage" >"$stage/log" 2>&1 || {
	cat "$stage/log"
	exit 1
}

pc=$(find "$stage" -name hgm.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
PKG_CONFIG_SYSROOT_DIR=$stage
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR

cflags=$(pkg-config --cflags hgm)
libs=$(pkg-config --libs hgm)
static_libs=$(pkg-config --static --libs hgm | sed 's/-lhgm\>/-l:libhgm.a/')
libdir=$(dirname "$(find "$stage" -name libhgm.so.0)")

case "$cflags$libs" in
*-D* | *urcu* | *-std=*)
	echo "hgm.pc asks users for more than they need: $cflags $libs"
	exit 1
	;;
esac
for header in "$include"/hgm/*.h; do
	find "$stage" -path "*/include/hgm/$(basename "$header")" | grep -q . || {
		echo "$(basename "$header") is not installed"
		exit 1
	}
done

man3=$(find "$stage" -type d -name man3)
for name in $(nm -D --defined-only "$libdir/libhgm.so.0" | sed -n 's/.* T \(hgm_[a-z0-9_]*\).*/\1/p'); do
	[ -s "$man3/$name.3" ] || {
		echo "$name(3) is not installed"
		exit 1
	}
done

# shellcheck disable=SC2086 # flags are lists of words
"$@" -Wall -Wextra -Werror $cflags "$program" -o "$stage/shared" $libs
LD_LIBRARY_PATH=$libdir "$stage/shared"
# shellcheck disable=SC2086
"$@" -Wall -Wextra -Werror $cflags "$program" -o "$stage/static" $static_libs
"$stage/static"

# Built as an example, installed as a program.
if [ -e "$build/examples/hgm-probe" ]; then
	LD_LIBRARY_PATH=$libdir "$(find "$stage" -path '*/bin/hgm-probe')" --version
	find "$stage" -name 'hgm-probe.1*' | grep -q . || {
		echo "hgm-probe(1) is not installed"
		exit 1
	}
fi

# As a whole: needs nothing of the system that it runs on.
# shellcheck disable=SC2046
if echo 'int main(void) { return 0; }' |
	"$@" -x c - -static -o "$stage/probe" $(pkg-config --static --libs liburcu-bp) 2>/dev/null; then
	# shellcheck disable=SC2086,SC2046
	"$@" -Wall -Wextra -Werror $cflags "$program" -o "$stage/whole" -static \
		$(pkg-config --static --libs hgm)
	if readelf --program-headers "$stage/whole" | grep -q INTERP; then
		echo "linked with -static, and asks for a dynamic loader"
		exit 1
	fi
	"$stage/whole"
else
	echo "no program is linked with -static here: liburcu-bp.a or libc.a is missing"
fi
