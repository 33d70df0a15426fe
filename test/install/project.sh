#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# project.sh BUILDDIR SOURCE_ROOT KIND: a project of somebody else's that uses the library: of KIND
# meson and cmake, installed, found by pkg-config; of KIND subproject, as a part of a meson project;
# of KIND rust, a program without headers. Its program is run.
set -eu

build=$1
root=$2
kind=$3
here=$root/test/install

# shellcheck source=test/install/stage.sh
. "$here/stage.sh"
project=$stage/project
mkdir "$project"
cp "$here/user.c" "$project"

case $kind in
cmake) command -v cmake >/dev/null || skip "no cmake here" ;;
rust) command -v rustc >/dev/null || skip "no rustc here" ;;
esac

# meson_project OPTIONS...: build it, and see where its library comes from
meson_project() {
	cp "$here/project.meson" "$project/meson.build"
	quietly meson setup "$project/build" "$project" --buildtype=plain "$@"
	quietly ninja -C "$project/build" user user-static
	if ldd "$project/build/user-static" | grep libhgm; then
		echo "asked for the static library, and linked with the shared one"
		exit 1
	fi
	"$project/build/user-static"
	program=$project/build/user
}

loads_from() {
	LD_LIBRARY_PATH=$libdir ldd "$program" | grep -q "libhgm.so.0 => $1" || {
		echo "$program does not load libhgm.so.0 from $1"
		exit 1
	}
}

case $kind in
meson)
	meson_project
	loads_from "$libdir"
	;;
subproject)
	unset PKG_CONFIG_PATH
	mkdir "$project/subprojects"
	ln -s "$root" "$project/subprojects/libhgm"
	meson_project --wrap-mode=forcefallback
	libdir=
	loads_from "$project/build/subprojects/libhgm"
	# Of the library's own programs the project gets none unless it asks.
	if ninja -C "$project/build" -t targets all | grep -E 'hgm-probe|unit_'; then
		echo "a subproject builds examples or tests"
		exit 1
	fi
	;;
cmake)
	cp "$here/project.cmake" "$project/CMakeLists.txt"
	quietly cmake -G Ninja -S "$project" -B "$project/build"
	quietly cmake --build "$project/build"
	program=$project/build/user
	loads_from "$libdir"
	;;
rust)
	program=$project/user
	# shellcheck disable=SC2046 # lists of words
	quietly rustc --edition 2021 -D warnings "$here/user.rs" -o "$program" \
		$(pkg-config --libs-only-L hgm | sed 's/-L/-L native=/g') \
		$(pkg-config --libs-only-l hgm)
	;;
*)
	echo "no such kind of project: $kind"
	exit 2
	;;
esac

LD_LIBRARY_PATH=$libdir "$program"
