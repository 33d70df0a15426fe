#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# distros.sh BUILDDIR SUITE... [-- ARGUMENTS]: README's first commands on other releases of Debian.
#
# SUITE is a release as debootstrap(8) names it: bookworm, trixie, sid. Each gets a root file system
# with nothing but the base system, in ~/.cache/libhgm, and there a copy of the source tree, where
# `./run demo` and `./run test` install what they need and build. With ARGUMENTS it is `./run test
# ARGUMENTS` alone. The kernel, its huge pages and the devices are those of this machine; what cannot
# be had in there is skipped by the tests, with the reason.
#
# A root is kept for a week; what was built in it, and the copy, are in BUILDDIR/distro-SUITE. All
# mounts are in a namespace of their own: whatever becomes of a run, there are none left.
#
# Environment:
#   HGM_DISTROS_MIRROR   where packages come from; default: where apt gets Debian's from, else
#                        deb.debian.org. Where it cannot be reached and no root is there from an
#                        earlier run, the suite is skipped; with CI=true that is a failure.
#   HGM_TEST_SLOW        if set, tests that fail each call once do so for a sample of them
set -euo pipefail

cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/libhgm/distros
days=7

say() {
	printf '== %s\n' "$*"
}

die() {
	printf 'distros: %s\n' "$*" >&2
	exit 1
}

# cannot SUITE REASON: it is skipped, which CI does not forgive
cannot() {
	say "$1: skipped: $2"
	[ "${CI:-}" = true ] || exit 0
	exit 1
}

find_mirror() {
	local mirror=${HGM_DISTROS_MIRROR:-}
	if [ -z "$mirror" ] && command -v apt-get >/dev/null; then
		# shellcheck disable=SC2016 # apt fills in the fields
		mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' \
			'Created-By: Packages' 2>/dev/null | awk '$1 $2 == "DebianDebian" { print $3; exit }')
	fi
	mirror=${mirror:-http://deb.debian.org/debian}
	echo "${mirror%/}"
}

# What apt uses, debootstrap does not know of.
find_proxy() {
	local proxy=${http_proxy:-} Proxy=
	if [ -z "$proxy" ] && command -v apt-config >/dev/null; then
		eval "$(apt-config shell Proxy Acquire::http::Proxy)"
		proxy=$Proxy
	fi
	[ "$proxy" = DIRECT ] || echo "$proxy"
}

# make_root SUITE DIR: DIR/root, unless it is there and young enough
make_root() {
	local suite=$1 dir=$2 mirror
	[ -z "$(find "$dir/made" -mtime "-$days" 2>/dev/null)" ] || return 0
	mirror=$(find_mirror)
	if ! wget -q --spider --timeout=10 --tries=2 "$mirror/dists/$suite/Release"; then
		[ -f "$dir/made" ] ||
			cannot "$suite" "$mirror cannot be reached (HGM_DISTROS_MIRROR names another)"
		say "$suite: $mirror cannot be reached; going on with a root of $(date -r "$dir/made" +%F)"
		return
	fi
	say "$suite: debootstrap from $mirror"
	rm -rf "$dir/made" "$dir/root"
	debootstrap --variant=minbase "$suite" "$dir/root" "$mirror" >"$dir/debootstrap.log" 2>&1 || {
		tail -n 20 "$dir/debootstrap.log"
		die "debootstrap $suite failed; the whole story is in $dir/debootstrap.log"
	}
	# Nothing of it is worth waiting for a disk.
	echo force-unsafe-io >"$dir/root/etc/dpkg/dpkg.cfg.d/unsafe-io"
	echo 'APT::Keep-Downloaded-Packages "false";' >"$dir/root/etc/apt/apt.conf.d/no-archives"
	date >"$dir/made"
}

# copy_source ROOT_DIR COPY: the tree as it is here, beside what the same root built of the last one
copy_source() {
	local dir=$1 copy=$2
	cmp -s "$dir/made" "$copy/build-root" || rm -rf "$copy"
	mkdir -p "$copy"
	cp "$dir/made" "$copy/build-root"
	find "$copy" -mindepth 1 -maxdepth 1 ! -name 'build*' -exec rm -rf {} +
	tar -c --exclude=./build --exclude='./build-*' --exclude=./.git --exclude=__pycache__ . |
		tar -C "$copy" -x
}

# inside ROOT SOURCE SCRIPT [ARGUMENTS]: run in a mount namespace of its own
inside() {
	local root=$1 source=$2
	shift 2
	mkdir -p "$root/src"
	mount --bind "$root" "$root"
	mount --bind "$source" "$root/src"
	mount --rbind /proc "$root/proc"
	mount --rbind /dev "$root/dev"
	# The caller has reserved what huge pages there can be, and knows how to give them back.
	mount --rbind /sys "$root/sys"
	mount -o remount,bind,ro "$root/sys"
	[ ! -f /etc/resolv.conf ] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	cd "$root"
	# Where this cannot be, because / is an initramfs, a chroot will do: it denies user namespaces.
	! pivot_root . . 2>/dev/null || umount -l .
	exec chroot . /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		${http_proxy:+http_proxy="$http_proxy"} ${CI:+CI="$CI"} \
		${HGM_TEST_SLOW:+HGM_TEST_SLOW="$HGM_TEST_SLOW"} \
		bash -euc "cd /src; $*"
}

# test_suite BUILDDIR SUITE [ARGUMENTS]
test_suite() {
	local build=$1 suite=$2 dir=$cache/$2 script='./run demo; ./run test' lock
	shift 2
	[ $# -eq 0 ] || script="./run test ${*@Q}"
	unshare --mount true || cannot "$suite" "no mount namespace of our own here"
	mkdir -p "$dir"
	exec {lock}>"$dir/lock"
	flock "$lock"
	http_proxy=$(find_proxy)
	export http_proxy
	make_root "$suite" "$dir"
	copy_source "$dir" "$build/distro-$suite"
	say "$suite: $script"
	unshare --mount "$0" --inside "$dir/root" "$build/distro-$suite" "$script"
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
suites=()
build=${1:-}
shift || true
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	suites+=("$1")
	shift
done
[ ${#suites[@]} -gt 0 ] || die "usage: distros.sh BUILDDIR SUITE... [-- ARGUMENTS]"
[ "$(id -u)" -eq 0 ] || die "only root can make a root file system and go into it"
if [ ${#suites[@]} -eq 1 ]; then
	[ $# -eq 0 ] || shift
	test_suite "$build" "${suites[0]}" "$@"
	exit
fi
# Each by a process of its own: here "set -e" would be off, and an error go on.
failed=()
for suite in "${suites[@]}"; do
	"$0" "$build" "$suite" "$@" || failed+=("$suite")
done
[ ${#failed[@]} -eq 0 ] || die "failed on: ${failed[*]}"
