#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# probe.sh HGM_PROBE LIBHGM REFUSE PYTHON: hgm-probe as its users meet it, also where something is denied
# to them. Prints TAP.
set -u

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
cp "$1" "$stage/hgm-probe"
cp "$2" "$stage/libhgm.so.0"
cp "$3" "$stage/refuse"
python=$4
probe=$stage/hgm-probe
LD_LIBRARY_PATH=$stage${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
COLUMNS=4000 # a row is a line
export LD_LIBRARY_PATH COLUMNS

out=$stage/out
err=$stage/err
number=0
failed=0
skipped=0

# run STATUS COMMAND...: its exit status must be that
run() {
	want=$1
	shift
	"$@" >"$out" 2>"$err"
	status=$?
	[ "$status" -eq "$want" ] && return
	echo "# exit status $status instead of $want: $*"
	sed 's/^/# /' "$out" "$err"
	return 1
}

# row NAME ANSWER WORDS: what the last command said
row() {
	grep "^$1  *$2  *.*$3" "$out" >/dev/null && return
	echo "# not '$1 $2 ... $3' but: $(grep "^$1 " "$out")"
	return 1
}

# case NAME: runs the function of that name; its status 77 is a skip
check() {
	number=$((number + 1))
	"$1"
	case $? in
	0) echo "ok $number - $1" ;;
	77)
		echo "ok $number # SKIP $1"
		skipped=$((skipped + 1))
		;;
	*)
		echo "not ok $number - $1"
		failed=$((failed + 1))
		;;
	esac
}

skip() {
	echo "# skipped: $1"
	return 77
}

sysctl_is() {
	[ "$(cat /proc/sys/vm/unprivileged_userfaultfd 2>/dev/null)" = "$1" ]
}

root() {
	[ "$(id -u)" -eq 0 ]
}

sound_json() {
	"$python" - "$out" "$1" <<-'EOP'
		import json, sys
		j = json.load(open(sys.argv[1]))
		answers = {"yes", "no", "denied", "unproven"}
		keys = ["schema", "library", "kernel", "machine", "proved", "user_mode_only", "status",
		        "best", "backings", "capabilities"]
		assert list(j) == keys, list(j)
		assert j["schema"] == 1 and j["status"] == int(sys.argv[2])
		backings = {b["name"]: b for b in j["backings"]}
		assert list(backings) == ["hugetlb.hgm", "shmem.prepared", "shmem.lazy", "hugetlb.whole", "anon"]
		caps = {c["name"]: c for c in j["capabilities"]}
		assert len(caps) == len(j["capabilities"]) > 50
		for c in caps.values():
		    assert list(c) == ["name", "answer", "value", "reason", "help"], c
		    assert c["answer"] in answers and c["reason"], c
		for b in backings.values():
		    assert list(b) == ["name", "answer", "fault_bytes", "huge_by", "capability", "reason"], b
		    assert caps[b["capability"]]["answer"] == b["answer"], b
		yes = [b for b in backings if backings[b]["answer"] == "yes"]
		assert j["best"] == (yes[0] if yes else None)
		fine = [caps[c]["answer"] for c in ("hgm", "shmem.minor.4k", "anon.missing.4k")]
		want = 2 if caps["uffd.features"]["answer"] != "yes" else 0 if "yes" in fine else 1
		assert j["status"] == want, want
	EOP
}

the_table() {
	"$probe" >"$out" 2>"$err"
	status=$?
	[ "$status" -le 2 ] || return 1
	[ ! -s "$err" ] && head -n 1 "$out" | grep -q "^Linux $(uname -r) on " &&
		grep -q '^CAPABILITY  *ANSWER  *WHY$' "$out" && grep -q '^hgm  ' "$out" || return 1
	COLUMNS=40 "$probe" >"$out"
	[ $? -eq "$status" ]
}

the_json() {
	"$probe" --json >"$out"
	sound_json $?
}

the_json_of_the_proof() {
	"$probe" --prove --json >"$out"
	sound_json $?
}

named_capabilities() {
	run 64 "$probe" no.such && grep -q 'no.such: no such capability' "$err" && [ ! -s "$out" ] &&
		run 64 "$probe" --json anon.minor.4k no.such && [ ! -s "$out" ] &&
		run 1 "$probe" anon.minor.4k && row anon.minor.4k no EINVAL &&
		run 1 "$probe" --json anon.minor.4k &&
		"$python" -c 'import json, sys
j = json.load(sys.stdin)
assert [c["name"] for c in j["capabilities"]] == ["anon.minor.4k"] and j["status"] == 1' <"$out" || return 1
	"$probe" anon.collapse >"$out"
	status=$?
	if grep -q '^anon.collapse  *yes' "$out"; then [ $status -eq 0 ]; else [ $status -eq 1 ]; fi
}

usage() {
	run 64 "$probe" --nonsense && grep -q "unknown option '--nonsense'" "$err" && grep -q usage: "$err" &&
		run 64 "$probe" --huge-pages &&
		run 0 "$probe" --help && grep -q usage: "$out" &&
		run 0 "$probe" --version && grep -q '^hgm-probe [0-9.]*$' "$out"
}

output_that_fails() {
	[ -c /dev/full ] || { skip "no /dev/full"; return; }
	"$probe" >/dev/full 2>"$err"
	[ $? -eq 70 ] || return 1
	"$probe" --json >&- 2>"$err"
	[ $? -eq 70 ]
}

as_nobody() {
	root || { skip "only root can become nobody"; return; }
	command -v setpriv >/dev/null || { skip "no setpriv"; return; }
	sysctl_is 0 || { skip "vm.unprivileged_userfaultfd is not 0"; return; }
	"$probe" uffd.syscall >/dev/null || { skip "root has no userfaultfd either"; return; }
	nobody="setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs"
	# shellcheck disable=SC2086 # words
	run 1 $nobody "$probe" uffd.device uffd.syscall uffd.user_mode_only anon.missing.4k &&
		row uffd.syscall denied 'EPERM; vm.unprivileged_userfaultfd is 0 and this process has no CAP_SYS_PTRACE' &&
		row uffd.user_mode_only yes '' && row anon.missing.4k yes '' || return 1
	if [ "$(stat -c %a /dev/userfaultfd 2>/dev/null)" = 600 ]; then
		row uffd.device denied 'EACCES; its owner' && grep -q 'setfacl -m' "$out" || return 1
	fi
	# shellcheck disable=SC2086
	run 0 $nobody "$probe" && grep -q '^Only faults of user mode' "$out"
}

under_a_filter() {
	"$stage/refuse" 1 true
	[ $? -ne 77 ] || { skip "no seccomp filters here"; return; }
	"$probe" uffd.syscall >/dev/null || { skip "no userfaultfd without a filter either"; return; }
	run 2 "$stage/refuse" 1 "$probe" && grep -q 'no userfaultfd is available' "$out" &&
		row uffd.syscall denied 'seccomp filter of this process refuses it' &&
		{ [ ! -c /dev/userfaultfd ] || ! root ||
			row uffd.device denied 'IOC_NEW.*seccomp filter of this process'; } &&
		row uffd.user_mode_only denied 'seccomp filter of this process refuses it' &&
		grep -q 'helps: a seccomp profile' "$out" &&
		row anon.missing.4k denied 'see uffd.device' &&
		row shmem.collapse '[a-z]*' MADV_COLLAPSE &&
		run 2 "$stage/refuse" 38 "$probe" && # ENOSYS
		row uffd.syscall no 'seccomp filter of this process hides it' &&
		run 1 "$stage/refuse" 1 "$probe" uffd.features
}

# A shell in a mount namespace of its own
with_mounts() {
	run "$1" unshare -m sh -c "$2" sh "$probe"
}

without_the_device() {
	root || { skip "only root can hide a device"; return; }
	unshare -m true 2>/dev/null || { skip "no mount namespace of our own here"; return; }
	[ -c /dev/userfaultfd ] || { skip "no /dev/userfaultfd to hide"; return; }
	# shellcheck disable=SC2016 # for the inner shell
	with_mounts 1 'mount --bind /dev/null /dev/userfaultfd && exec "$1" uffd.device' &&
		row uffd.device no 'ENOTTY; this file is not the userfaultfd device' &&
		with_mounts 1 'mount -t tmpfs none /dev && exec "$1" uffd.device' &&
		row uffd.device no ENOENT && grep -q 'helps: for containers: --device' "$out"
}

in_a_user_namespace() {
	unshare -Ur true 2>/dev/null || { skip "no user namespace of our own here"; return; }
	sysctl_is 0 || { skip "vm.unprivileged_userfaultfd is not 0"; return; }
	run 1 unshare -Ur "$probe" uffd.syscall &&
		row uffd.syscall denied 'CAP_SYS_PTRACE of a user namespace does not count'
}

echo 1..10
check the_table
check the_json
check the_json_of_the_proof
check named_capabilities
check usage
check output_that_fails
check as_nobody
check under_a_filter
check without_the_device
check in_a_user_namespace
[ "$failed" -eq 0 ] || exit 1
[ "$skipped" -lt "$number" ] || exit 77
