# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # its users use what it sets, and set $build
#
# Sourced: installs what is in $build into a scratch directory, of which pkg-config then tells:
# $stage, the directory; $cflags and $libs, as a user of the library would ask for them; $libdir.

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

skip() {
	echo "# skipped: $1"
	exit 77
}

# quietly COMMAND...: its words only if it fails
quietly() {
	"$@" >"$stage/log" 2>&1 || {
		status=$?
		echo "$*: exit status $status"
		cat "$stage/log"
		exit 1
	}
}

quietly meson install -C "$build" --no-rebuild --quiet --destdir "$stage"

# Of what the library needs pkg-config must go on telling where the system has it: no sysroot.
pc=$(find "$stage" -name hgm.pc)
sed -i "s|^prefix=|&$stage|" "$(dirname "$pc")"/hgm*.pc
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH

cflags=$(pkg-config --cflags hgm)
libs=$(pkg-config --libs hgm)
libdir=$(dirname "$(find "$stage" -name libhgm.so.0)")
