#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# check.sh BUILDDIR SOURCE_ROOT COMPILER...: install into a scratch directory; look at what was
# installed; compile each public header alone; then build programs against that with nothing but
# pkg-config's words, shared, static, and as a whole static where the system has the libraries for
# that, and run them.
set -eu

build=$1
root=$2
shift 2
# shellcheck source=test/install/stage.sh
. "$root/test/install/stage.sh"

static_libs=$(pkg-config --static --libs hgm | sed 's/-lhgm\>/-l:libhgm.a/')
warnings='-Wall -Wextra -pedantic -Werror'

case "$cflags$libs" in
*-D* | *urcu* | *-std=*)
	echo "hgm.pc asks users for more than they need: $cflags $libs"
	exit 1
	;;
esac

headers=$(find "$stage" -path '*/include/hgm/*.h')
for header in "$root"/include/hgm/*.h; do
	# Of a library that is built where libnbd is.
	[ "${header##*/}" != nbd.h ] || [ -e "$build/nbd/libhgm-nbd.so" ] || continue
	echo "$headers" | grep -q "/$(basename "$header")$" || {
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

# What it calls of its own interface is not a program's to replace.
if readelf --relocs --wide "$libdir/libhgm.so.0" | grep '[[:space:]]hgm_.*@'; then
	echo "the library calls itself by way of the dynamic linker"
	exit 1
fi

# What a header inlines is compiled into users' programs, and outlives the library that it knew.
# shellcheck disable=SC2086 # a list of files
if grep -n '\binline\b' $headers; then
	echo "a public header defines a function"
	exit 1
fi

# A header that declares functions, or their types, has a macro by which users can ask for it.
for header in $headers; do
	name=$(basename "$header" .h)
	macro=HGM_HAVE_$(echo "$name" | tr '[:lower:]' '[:upper:]')
	declares=no
	defined=no
	! grep -Eq '^HGM_PUBLIC |^typedef .*\(' "$header" || declares=yes
	! grep -q "^#define ${macro}[[:space:]]*1\$" "$(dirname "$header")/version.h" || defined=yes
	case $name in
	error | version) continue ;; # have always been there
	nbd) continue ;;	     # is there with its library
	esac
	[ $declares = $defined ] || {
		echo "$name.h declares functions: $declares; version.h defines $macro: $defined"
		exit 1
	}
done

for header in $headers; do
	echo "#include <hgm/$(basename "$header")>" >"$stage/alone.c"
	# shellcheck disable=SC2086 # flags are lists of words
	"$@" $warnings $cflags -fsyntax-only "$stage/alone.c"
done

# user.c is a program as users write it; every.c has each function once; misuse.c does what they should
# not. What the functions say is recorded (test/errors/record.h).
for program in user every misuse; do
	# shellcheck disable=SC2086
	"$@" $warnings $cflags "$root/test/install/$program.c" -o "$stage/$program" $libs -pthread
	status=0
	LD_LIBRARY_PATH=$libdir LD_PRELOAD=${HGM_RECORD:+$build/test/errors/recorder.so} \
		"$stage/$program" || status=$?
	if [ $program$status = every77 ]; then
		echo "this kernel, or this process, lacks what has no yes above"
		[ -z "${HGM_RECORD:-}" ] || touch "$HGM_RECORD/skipped"
	elif [ $status -ne 0 ]; then
		exit $status
	fi
done
# shellcheck disable=SC2086
"$@" $warnings $cflags "$root/test/install/user.c" -o "$stage/static" $static_libs
"$stage/static"

# Nothing public is left out of the table of misuse.
LD_LIBRARY_PATH=$libdir "$stage/misuse" --list | sort -u >"$stage/misused"
nm -D --defined-only "$libdir/libhgm.so.0" | sed -n 's/.* T \(hgm_[a-z0-9_]*\)@.*/\1/p' | sort >"$stage/public"
[ -s "$stage/public" ] || {
	echo "nm tells of no public function"
	exit 1
}
if comm -3 "$stage/public" "$stage/misused" | grep .; then
	echo "these public functions are not in test/install/misuse.c, or are none"
	exit 1
fi

# Built as an example, installed as a program.
if [ -e "$build/examples/probe/hgm-probe" ]; then
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
	"$@" $warnings $cflags "$root/test/install/user.c" -o "$stage/whole" -static \
		$(pkg-config --static --libs hgm)
	if readelf --program-headers "$stage/whole" | grep -q INTERP; then
		echo "linked with -static, and asks for a dynamic loader"
		exit 1
	fi
	"$stage/whole"
else
	echo "no program is linked with -static here: liburcu-bp.a or libc.a is missing"
fi
