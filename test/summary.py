#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sum up a `meson test` run: summary.py BUILDDIR [REASON]

Counts cmocka cases from the TAP that the programs print with CMOCKA_MESSAGE_OUTPUT=TAP, and one
for each other test. Shows the output of what failed and the reason of what was skipped. The last
line is always `N passed, N failed, N skipped`. With CI=true a skip is a failure too,
unless the regular expression REASON matches its reason.
"""

import json
import os
import re
import sys

PLAN = re.compile(r"^1\.\.(\d+)$")
CASE = re.compile(r"^(ok|not ok) \d+ (?:- (.*)|# SKIP (.*))$")
EXIT_SKIPPED = 77


class Result:
    def __init__(self):
        self.passed = self.failed = 0
        self.skipped = []  # (case, reason)


def count(entry):
    """The Result of one test program."""
    res = Result()
    planned = None
    reason = ""
    for line in entry.get("stdout", "").splitlines():
        plan = PLAN.match(line)
        case = CASE.match(line)
        if plan:
            planned = (planned or 0) + int(plan[1])
        elif line.startswith("# skipped: "):
            reason = line[len("# skipped: "):]
        elif case and case[3] is not None:
            res.skipped.append((case[3], reason or "no reason given"))
            reason = ""
        elif case and case[1] == "ok":
            res.passed += 1
        elif case:
            res.failed += 1

    status = entry["returncode"]
    if planned is None:  # not a cmocka program
        if entry["result"] == "OK":
            res.passed = 1
        elif status == EXIT_SKIPPED:
            res.skipped.append((entry["name"], reason or "no reason given"))
        else:
            res.failed = 1
        return res

    # Cases that never reported (a crash, a timeout), and a program that failed after its cases
    # (a leak, a data race), must not get lost.
    res.failed += planned - res.passed - res.failed - len(res.skipped)
    if entry["result"] not in ("OK", "SKIP") and not res.failed:
        res.failed = 1
    return res


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    excused = re.compile(sys.argv[2]) if len(sys.argv) == 3 else None
    log = os.path.join(sys.argv[1], "meson-logs", "testlog.json")
    passed = failed = skipped = unexcused = 0
    why = {}  # reason: who was skipped for it
    with open(log, encoding="utf-8", errors="replace") as lines:
        entries = [json.loads(line) for line in lines]
    for entry in entries:
        res = count(entry)
        passed += res.passed
        failed += res.failed
        skipped += len(res.skipped)
        if res.failed:
            print(f"\n==== {entry['name']}: {entry['result']}, exit {entry['returncode']} ====")
            print(entry.get("stdout", "").rstrip())
            print(entry.get("stderr", "").rstrip())
        for case, reason in res.skipped:
            name = entry["name"] if case == entry["name"] else f"{entry['name']}: {case}"
            why.setdefault(reason, []).append(name)
            unexcused += not (excused and excused.search(reason))
    for reason, names in why.items():
        print(f"skipped: {reason}:" if len(names) > 1 else f"skipped: {names[0]}: {reason}")
        for name in names if len(names) > 1 else ():
            print(f"  {name}")
    if not passed + failed + skipped:
        print("no test was run")
        failed = 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    strict = os.environ.get("CI") == "true"
    return 1 if failed or (strict and unexcused) else 0


if __name__ == "__main__":
    sys.exit(main())
