#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# nbd.sh BUILDDIR SOURCE_ROOT COMPILER...: libhgm-nbd as it is installed. The program of its manual page
# is compiled with pkg-config's words, shared and static, and reads from a server.
set -eu

build=$1
root=$2
shift 2
# shellcheck source=test/install/stage.sh
. "$root/test/install/stage.sh"

program=$root/man/examples/hgm_source_nbd.c
warnings='-Wall -Wextra -Werror'

case "$(pkg-config --cflags --libs hgm-nbd)" in
*libnbd* | *-lnbd* | *-D*)
	echo "hgm-nbd.pc asks users for more than they need: $(pkg-config --cflags --libs hgm-nbd)"
	exit 1
	;;
esac
find "$stage" -name 'hgm_source_nbd.3*' | grep -q . || {
	echo "hgm_source_nbd(3) is not installed"
	exit 1
}
if readelf --dynamic "$libdir/libhgm.so.0" | grep 'NEEDED.*nbd'; then
	echo "libhgm needs libnbd"
	exit 1
fi
exports=$(nm -D --defined-only "$libdir/libhgm-nbd.so.0" | sed -n 's/.* T //p')
[ "$exports" = hgm_source_nbd@@HGM_NBD_0.1 ] || {
	echo "libhgm-nbd.so exports $exports"
	exit 1
}

# shellcheck disable=SC2046,SC2086 # lists of words
"$@" $warnings "$program" -o "$stage/shared" $(pkg-config --cflags --libs hgm-nbd)
# shellcheck disable=SC2046,SC2086
"$@" $warnings "$program" -o "$stage/static" $(pkg-config --static --cflags --libs hgm-nbd |
	sed 's/-lhgm-nbd/-l:libhgm-nbd.a/; s/-lhgm\( \|$\)/-l:libhgm.a /')
if ldd "$stage/static" | grep libhgm; then
	echo "asked for the static libraries, and linked with the shared ones"
	exit 1
fi

export LD_LIBRARY_PATH="$libdir"
if "$stage/shared" "nbd+unix:///?socket=$stage/nobody" 8 2>"$stage/said"; then
	echo "it reads from a server that does not exist"
	exit 1
fi
grep -q 'No such file' "$stage/said" || {
	cat "$stage/said"
	exit 1
}
command -v nbdkit >/dev/null || skip "no nbdkit here"
for program in shared static; do
	# shellcheck disable=SC2016 # for nbdkit's shell
	PROGRAM=$stage/$program nbdkit -U - -r pattern 8M --run '"$PROGRAM" "$uri" 8'
done
