#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kernels.sh BUILDDIR KERNEL... [-- TEST...]: the system tests and the examples on other kernels, in
# QEMU; with TEST, which may be patterns like 'system_dirty*', only those.
#
# KERNEL is the beginning of a version, as Debian names it, like 6.1 or 6.12: the newest package of
# that version which Debian offers is fetched and unpacked, never installed. With "newest", it is the
# newest version of all, backports included. apt uses sources, lists and a state of its own, all in
# BUILDDIR/debian, so those of this machine stay as they are. Or KERNEL is the path of a kernel image
# of your own, x86-64, with a serial console and an initramfs.
#
# Each boots with an initramfs that holds nothing but our programs: init (init.c), the system tests
# with the shared libraries that they need, and the examples, which need none. The first serial
# port is the kernel's log, the second brings the results, which results.py turns into what
# test/summary.py reads. Failures are: a failed test, one that hangs, a kernel that complains (BUG,
# WARNING, a stall), and one that does not come to the end. All that is left of a run is in
# BUILDDIR/kernel-KERNEL/.
#
# Not run unless named: suite 'timing', which measures this machine's time and nothing of the kernel.
# Never run: suite 'nbd', which is about servers, and these are not in there.
#
# Environment:
#   HGM_KERNELS_MIRROR  where packages come from; default http://deb.debian.org
#   HGM_KERNELS_SHORT   if true, suite 'long' is left out, too
#   HGM_KERNELS_ACCEL   QEMU's -accel; default tcg, because nested KVM may hang instead of failing
#   HGM_KERNELS_LIMIT   seconds for one kernel; default 2400
#   HGM_KERNELS_AT_A_TIME  how many run side by side, with 5 GiB each; default 2
set -euo pipefail

here=$(dirname "$0")
mirror=${HGM_KERNELS_MIRROR:-http://deb.debian.org}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
accel=${HGM_KERNELS_ACCEL:-tcg,thread=multi}
limit=${HGM_KERNELS_LIMIT:-2400}
at_a_time=${HGM_KERNELS_AT_A_TIME:-2}

# Emulation is slower, by less for what the kernel does than for what we compute.
slow=2
memory_mib=5120 # test_snapshot_stalls has 1 GiB four times
# REP MOVSB and REP STOSB are emulated byte by byte: without them (and REP STOSQ, clearcpuid in
# boot()) memory is cleared and copied by plain loops, many times faster.
cpu=max,-erms,-fsrm
huge_pages=160

die() {
	printf 'kernels: %s\n' "$*" >&2
	exit 1
}

# apt PROGRAM ARGUMENTS: apt-get or apt-cache, with the configuration in $debian
apt() {
	local program=$1
	shift
	"$program" -qq -c "$debian/apt.conf" "$@"
}

# Of the current release and the one before, the security archive alone has all kernels.
configure_apt() {
	mkdir -p "$debian/lists/partial" "$debian/cache/archives/partial"
	cat >"$debian/debian.sources" <<-EOF
		Types: deb
		URIs: $mirror/debian-security
		Suites: bookworm-security trixie-security
		Components: main
		Signed-By: $keyring

		Types: deb
		URIs: $mirror/debian
		Suites: trixie-backports sid
		Components: main
		Signed-By: $keyring
	EOF
	cat >"$debian/apt.conf" <<-EOF
		Dir::Etc::sourcelist "$debian/debian.sources";
		Dir::Etc::sourceparts "-";
		Dir::State "$debian";
		Dir::State::lists "$debian/lists";
		Dir::State::status "/dev/null";
		Dir::Cache "$debian/cache";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "$(id -un)";
		Acquire::Languages "none";
		Acquire::PDiffs "false";
	EOF
}

# The lists are good for a day, unless a package is not where they say.
update_lists() {
	apt apt-get update >&2 && touch "$debian/updated"
}

have_lists() {
	[ -n "$(find "$debian/updated" -mmin -1440 2>/dev/null)" ] || update_lists
}

# newest_of VERSION: the newest version that begins so, as packages name it, or fail; the cloud
# flavour is the same memory management with fewer drivers, at a third of the size
newest_of() {
	local version='[0-9]' found
	[ "$1" = newest ] || version="${1//./\\.}[.+-]"
	found=$(apt apt-cache search --names-only "^linux-image-${version}[^ ]*-cloud-amd64$" |
		sed -n 's/^linux-image-\([0-9][^ -]*\.[^ ]*-cloud-amd64\) .*/\1/p' | sort -V | tail -n 1)
	[ -n "$found" ] && echo "$found"
}

# fetch VERSION IMAGE: since 6.19, what is named linux-image is empty
fetch() {
	local package=linux-binary-$1 inside='./usr/lib/modules/*/vmlinuz' image=$2 dir
	if [ -z "$(apt apt-cache search --names-only "^linux-binary-${1//[.+]/.}$")" ]; then
		package=linux-image-$1
		inside='./boot/vmlinuz-*'
	fi
	dir=$(mktemp -d "$debian/fetch-XXXXXX")
	if (cd "$dir" && apt apt-get download "$package") >&2 &&
		dpkg-deb --fsys-tarfile "$dir"/*.deb |
		tar -xO --wildcards "$inside" >"$dir/vmlinuz" && [ -s "$dir/vmlinuz" ]; then
		mv "$dir/vmlinuz" "$image"
	fi
	rm -r "$dir"
	[ -f "$image" ]
}

# image_of KERNEL: the path of its image
image_of() {
	local version image
	if [ -f "$1" ]; then
		echo "$1"
		return
	fi
	command -v apt-get >/dev/null ||
		die "there is no apt here to fetch Debian's $1 with: give the path of a kernel image"
	[ -f "$keyring" ] || die "there is no $keyring here (package debian-archive-keyring)"
	configure_apt
	exec 9>"$debian/lock" # of this subshell: two kernels may be fetched at a time
	flock 9
	have_lists || die "the package lists of $mirror could not be fetched"
	version=$(newest_of "$1") || die "Debian has no linux-image-$1*-cloud-amd64"
	image=$debian/vmlinuz-$version
	if [ ! -f "$image" ] && ! fetch "$version" "$image"; then
		# The lists may be older than what the mirror has.
		update_lists || true
		version=$(newest_of "$1")
		image=$debian/vmlinuz-$version
		[ -f "$image" ] || fetch "$version" "$image" || die "Linux $version could not be fetched"
	fi
	echo "$image"
}

# put FILE DIR: without debugging information
put() {
	strip -o "$2/$(basename "$1")" "$1"
}

# libraries_of PROGRAM: also the one that the C library loads when a thread is first cancelled
libraries_of() {
	ldd "$1" | grep -o '/[^ ]*'
	"${CC:-cc}" -print-file-name=libgcc_s.so.1
}

# make_initramfs BUILDDIR DIR TEST...: DIR/initramfs
make_initramfs() {
	local build=$1 dir=$2 root=$2/root test library program
	shift 2
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/tests"
	strip -o "$root/init" "$build/test/kernels/init"
	for program in "$build"/examples/*-static "$build"/examples/*/*-static; do
		put "$program" "$root/bin"
	done
	python3 "$here/results.py" plan "$build" "$@" >"$root/plan"
	while read -r test _; do
		[ -f "$build/test/$test" ] || continue
		put "$build/test/$test" "$root/tests"
		for library in $(libraries_of "$build/test/$test"); do
			install -D "$library" "$root$library"
		done
	done <"$root/plan"
	(cd "$root" && find . | cpio --create --format newc --quiet --owner 0:0) >"$dir/initramfs"
}

# boot IMAGE DIR: DIR/console.log, DIR/results.log; what QEMU says is its own
boot() {
	local image=$1 dir=$2 append
	append="console=ttyS0 panic=-1 oops=panic hugepagesz=1G hugepages=1 nr_hugepages=$huge_pages"
	append+=" clearcpuid=rep_good HGM_TEST_SLOW=$slow CMOCKA_MESSAGE_OUTPUT=TAP"
	rm -f "$dir/console.log" "$dir/results.log"
	timeout --foreground "$limit" qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp 2 \
		-m "$memory_mib" -nodefaults -display none -no-reboot \
		-serial "file:$dir/console.log" -serial "file:$dir/results.log" \
		-kernel "$image" -initrd "$dir/initramfs" -append "$append" </dev/null
}

# test_kernel BUILDDIR KERNEL TEST...
test_kernel() {
	local build=$1 kernel=$2 image dir rc=0
	shift 2
	image=$(image_of "$kernel")
	dir=$build/kernel-$(basename "$kernel")
	mkdir -p "$dir"
	printf '== %s\n' "$(basename "$image")"
	make_initramfs "$build" "$dir" "$@"
	boot "$image" "$dir" || rc=$?
	python3 "$here/results.py" collect "$dir" "$rc"
	python3 "$here/../summary.py" "$dir" '^this kernel has no '
}

[ $# -ge 2 ] || die "usage: kernels.sh BUILDDIR KERNEL... [-- TEST...]"
[ "$(uname -m)" = x86_64 ] || die "only x86-64 builds for the machines that are booted here"
build=$1
debian=$(realpath "$build")/debian
shift
kernels=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	kernels+=("$1")
	shift
done
[ $# -eq 0 ] || shift
if [ ${#kernels[@]} -eq 1 ]; then
	test_kernel "$build" "${kernels[0]}" "$@"
	exit
fi
# Each by a process of its own: here "set -e" would be off, and an error go on.
failed=()
for kernel in "${kernels[@]}"; do
	log=$build/kernel-$(basename "$kernel").log
	rm -f "$log" "$log.failed"
	[ "$(jobs -rp | wc -l)" -lt "$at_a_time" ] || wait -n
	{ "$0" "$build" "$kernel" -- "$@" >"$log" 2>&1 || touch "$log.failed"; } &
done
wait
for kernel in "${kernels[@]}"; do
	log=$build/kernel-$(basename "$kernel").log
	cat "$log"
	[ ! -f "$log.failed" ] || failed+=("$kernel")
done
[ ${#failed[@]} -eq 0 ] || die "failed on: ${failed[*]}"
