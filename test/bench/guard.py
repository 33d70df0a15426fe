#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does `bench --check` find a regression, and only one that stays? guard.py BENCH SLOW LIMITS

SLOW is to be preloaded: with it libhgm maps pages slowly, for a while or for ever. Prints TAP.
"""

import os
import re
import subprocess
import sys
import tempfile

EXIT_FINE = 0
EXIT_REGRESSION = 1
EXIT_CANNOT = 2
MEASURED_MOST = 3
BENCH = "touch-1-pinned"  # on one CPU: the row that a busy machine disturbs least
ROW = BENCH + ".p50"
# More than one of the three rounds makes, fewer than two and a half.
CALLS_OF_A_WHILE = "9000"


class Skip(Exception):
    pass


class Guard:
    def __init__(self, bench, slow, limits):
        self.bench, self.slow, self.limits = bench, slow, limits

    def run(self, only, limits=None, slow=False, calls=None):
        """Its exit status, what it said, and how often each row was measured."""
        environment = dict(os.environ)
        if slow:
            environment["LD_PRELOAD"] = self.slow
        if calls:
            environment["SLOW_CALLS"] = calls
        done = subprocess.run([self.bench, "--quick", "--only", only, "--check", "--limits",
                               limits or self.limits], capture_output=True, text=True,
                              timeout=100, check=False, env=environment)
        for line in (done.stdout + done.stderr).splitlines():
            print("#", line)
        if done.returncode == EXIT_CANNOT and not limits:
            raise Skip("this machine cannot, see above")
        return done.returncode, done.stdout + done.stderr

    def run_with(self, line):
        """The bench `map`, which needs no privilege, with a limit made for it."""
        with tempfile.NamedTemporaryFile("w", suffix=".limits") as file:
            file.write(line + "\n")
            file.flush()
            return self.run("map", limits=file.name)

    def impossible_limit(self):
        status, said = self.run_with("map.lookup ratio <= - 0.001")
        assert status == EXIT_REGRESSION, f"exit status {status}"
        assert "REGRESSION map.lookup: ratio" in said and "at most 0.001" in said
        assert times(said, "map.lookup") == MEASURED_MOST

    def impossible_least(self):
        status, said = self.run_with("map.c* value >= - 1e9")
        assert status == EXIT_REGRESSION, f"exit status {status}"
        assert "REGRESSION map.claim: value" in said and "at least 1e+09" in said

    def no_limit_at_all(self):
        status, said = self.run_with("map.lookup ratio <= 1 -")
        assert status == EXIT_CANNOT, f"exit status {status}"
        assert "no row that was measured has a limit" in said

    def as_it_is(self):
        status, said = self.run(BENCH)
        assert status == EXIT_FINE, f"exit status {status}"
        assert "REGRESSION" not in said

    def slow_for_ever(self):
        status, said = self.run(BENCH, slow=True)
        assert status == EXIT_REGRESSION, f"exit status {status}"
        assert f"REGRESSION {ROW}: ratio" in said
        assert times(said, ROW) == MEASURED_MOST

    def slow_for_a_while(self):
        status, said = self.run(BENCH, slow=True, calls=CALLS_OF_A_WHILE)
        assert status == EXIT_FINE, f"exit status {status}"
        assert times(said, ROW) > 1, "the slow time went by unseen"


def times(said, row):
    return len(re.findall(rf"^{re.escape(row)} ", said, re.MULTILINE))


def main():
    guard = Guard(*sys.argv[1:])
    cases = [guard.impossible_limit, guard.impossible_least, guard.no_limit_at_all,
             guard.as_it_is, guard.slow_for_ever, guard.slow_for_a_while]
    failed = skipped = 0
    print(f"1..{len(cases)}")
    for number, case in enumerate(cases, 1):
        try:
            case()
        except Skip as reason:
            print(f"# skipped: {reason}\nok {number} # SKIP {case.__name__}")
            skipped += 1
        except (AssertionError, subprocess.TimeoutExpired) as wrong:
            print(f"# {wrong}\nnot ok {number} - {case.__name__}")
            failed += 1
        else:
            print(f"ok {number} - {case.__name__}")
        sys.stdout.flush()
    sys.exit(1 if failed else 77 if skipped == len(cases) else 0)


if __name__ == "__main__":
    main()
