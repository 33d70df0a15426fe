#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What ./run does where things cannot be installed: it goes on without those that it only wants, and
# says so; what it needs it names, and ends.
#
# wants.sh SOURCE_ROOT
set -euo pipefail
root=$1
dir=$(mktemp -d)
[ -n "$dir" ] && [ -d "$dir" ]
trap 'rm -rf "${dir:?}"' EXIT
bin=${dir:?}/bin

# A machine that has little, where rustc and abidiff cannot be had, and cmake can.
mkdir "$bin" "$dir/run"
for tool in awk bash cat chmod dirname sed sort tr; do
	ln -s "$(command -v "$tool")" "$bin/$tool"
done
printf '#!/bin/sh\ncat "%s"\n' "$dir/user" >"$bin/id"
cat >"$bin/apt-get" <<END
#!/bin/sh
case "\$*" in
*rustc* | *abigail-tools* | *systemtap-sdt-dev* | *gcc*) exit 100 ;;
*cmake*) echo >"$bin/cmake" && chmod +x "$bin/cmake" ;;
esac
END
chmod +x "$bin/id" "$bin/apt-get"
sed '/^command=/,$d' "$root/run" >"$dir/run/functions"

# the_run USER_ID COMMANDS: with the functions of ./run; what it prints, then how it ended
the_run() {
	echo "$1" >"$dir/user"
	{
		cat "$dir/run/functions"
		printf '%s\n' "$2"
	} >"$dir/run/script"
	PATH=$bin bash "$dir/run/script" 2>&1 && echo "ended well" || echo "ended with $?"
}

# expect WHAT TEXT LINE...: the lines that must be there
expect() {
	local what=$1 text=$2 line
	shift 2
	for line in "$@"; do
		grep -qxF -- "$line" <<<"$text" || {
			printf '%s: no line "%s" in\n%s\n' "$what" "$line" "$text"
			exit 1
		}
	done
}

# shellcheck disable=SC2016 # for ./run to expand
goes_on='echo "goes on without ${lacking[*]}"'

expect "root wants" "$(the_run 0 "want abidiff sdt.h cmake rustc; $goes_on")" \
	"== missing: abidiff sdt.h rustc; tests that need one of these are skipped" \
	"goes on without abidiff sdt.h rustc" "ended well"
[ -x "$bin/cmake" ] || {
	echo "what can be installed was not"
	exit 1
}

rm "$bin/cmake"
expect "a user wants" "$(the_run 1000 "want cmake; $goes_on")" \
	"== missing: cmake; tests that need one of these are skipped" \
	"goes on without cmake" "ended well"

expect "root needs" "$(the_run 0 'need gcc; echo "goes on"')" \
	"run: apt-get could not install: gcc" "ended with 1"
expect "a user needs" "$(the_run 1000 'need gcc; echo "goes on"')" \
	"run: missing: gcc" "ended with 1"

# shellcheck disable=SC2016
expect "the lists" "$(the_run 1000 'for thing in $for_test_too; do
	[[ " $for_test " == *" $thing "* ]] || echo "$thing is optional"
done')" "abidiff is optional" "sdt.h is optional" "cmake is optional" "rustc is optional"
