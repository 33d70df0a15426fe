#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""demo.py DEMO SPOIL COMMAND: the demo's commands as their users meet them. Prints TAP.

COMMAND is snapshot, dirty or balloon. With KVM and without, on each kind of memory, with wrong arguments, and with
a libhgm that is wrong (SPOIL, to be preloaded).
"""

import json
import os
import re
import subprocess
import sys
import tempfile

EXIT_WRONG = 1
EXIT_USAGE = 2
EXIT_CANNOT = 77
SIZE = "16"
PAGE = 4096


def run(demo, *arguments, preload=None):
    environment = {**os.environ, "LD_PRELOAD": preload} if preload else None
    return subprocess.run([demo, *arguments], capture_output=True, text=True, timeout=100,
                          check=False, env=environment)


def results(demo, command, *options):
    """What the command wrote as JSON; None if this machine cannot."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = run(demo, command, "--size", SIZE, "--json", file.name, *options)
        for line in (done.stdout + done.stderr).splitlines():
            print("#", line)
        if done.returncode == EXIT_CANNOT:
            return None
        assert done.returncode == 0, f"exit status {done.returncode}"
        if {"--huge", "--sync"} <= set(options):
            assert "--huge changed nothing" in done.stdout
        with open(file.name, encoding="utf-8") as text:
            return json.load(text)


def check_snapshot(got):
    for name in ("live", "stopped"):
        assert got[name]["one_instant"], f"{name} is not one instant"
        assert not any(got[name][kind] for kind in ("newer", "older", "torn", "other")), name
        assert got[name]["paused_us"] > 0, name
    assert not got["running"]["one_instant"]
    assert got["running"]["newer"] > 0
    assert got["stopped"]["stalls"] > 0, "nobody noticed that the guest stood still"
    assert got["stopped"]["max_us"] > got["stopped"]["took_us"] / 2
    assert got["usual_writes_per_s"] > 0 and got["second"]["writes"] > 0


def check_dirty(got):
    rounds = got["rounds"]
    assert got["missed"] == 0
    assert rounds[0]["pages"] == got["bytes"] // PAGE
    assert 2 <= len(rounds) <= 31
    assert got["unit_bytes"] >= PAGE
    assert got["pause_us"] > 0 and got["writes_there"] > 0


def check_balloon(got):
    rows, half = got["rows"], got["bytes"] // 2
    phases = ["restore", "in use"] + ["snapshot"] * got["snapshot"] + ["deflate", "huge"]
    last = {row["phase"]: row for row in rows}
    assert list(last) == phases
    assert got["balloon_bytes"] == half
    assert got["discards"] == half // got["unit_bytes"]
    for phase in phases[:-2]:
        assert last[phase]["balloon"] == half and last[phase]["arrived"] == got["bytes"]
    assert last["deflate"]["balloon"] == 0
    assert last["huge"]["memory"] > last["in use"]["memory"] + half * 0.9, "nothing came back"
    assert got["writes"] > 0


CHECKS = {"balloon": check_balloon, "dirty": check_dirty, "snapshot": check_snapshot}
RUNS = {
    "with KVM, where there is": [],
    "with threads": ["--threads"],
    "hugetlb": ["--threads", "--backing", "hugetlb-2m"],
    "lazy": ["--threads", "--backing", "shmem-lazy"],
    "anonymous": ["--threads", "--backing", "anon"],
}
OWN_RUNS = {
    "balloon": {"slow link": ["--link", "0.1:1000"]},
    "dirty": {"by faults": ["--sync"], "huge": ["--huge"], "slow link": ["--gbps", "0.3"],
              "huge by faults": ["--huge", "--sync"]},
    "snapshot": {"proved": ["--prove"], "slowly": ["--rate", "20000"]},
}
SPOILT = {"balloon": r"found \d+ wrong pages",
          "dirty": r"written to and not reported",
          "snapshot": r"live snapshot .* 1 (older|torn|wrong)\n"}

WRONG = [
    (["--size", "0"], "--size"), (["--size", "3"], "--size"), (["--size", "x"], "--size"),
    (["--size", "4096"], "--size"), (["--size"], "argument"), (["--backing", "paper"], "paper"),
    (["--rate", "99"], "--rate"), (["--rate", "1e3"], "--rate"), (["--bogus"], "bogus"),
    (["more"], "more"), (["--json", "/nowhere/at/all"], "/nowhere/at/all"),
]


def case_run(demo, command, options):
    got = results(demo, command, *options)
    if got is None:
        return "this machine cannot, see above"
    assert got["bytes"] == int(SIZE) << 20
    if "--threads" in options:
        assert not got["kvm"]
    if command == "dirty":
        assert got["sync"] or "--sync" not in options
        if not {"--huge", "hugetlb-2m"} & set(options):
            assert got["unit_bytes"] == PAGE
    CHECKS[command](got)
    return None


def case_wrong(demo, command):
    for arguments, mentioned in WRONG:
        done = run(demo, command, *arguments)
        assert done.returncode == EXIT_USAGE, f"{arguments}: exit status {done.returncode}"
        assert mentioned in done.stderr, f"{arguments}: {done.stderr}"
        assert not done.stdout, f"{arguments}: {done.stdout}"


def case_spoilt(demo, command, spoil):
    done = run(demo, command, "--size", SIZE, "--threads", preload=spoil)
    for line in (done.stdout + done.stderr).splitlines():
        print("#", line)
    assert done.returncode == EXIT_WRONG, f"exit status {done.returncode}"
    assert re.search(SPOILT[command], done.stdout + done.stderr), "not for the right reason"


def case_help(demo, command):
    done = run(demo, command, "--help")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.startswith(f"usage: demo {command} ")
    for option in ("--size", "--backing", "--threads", "--json",
                   "--link" if command == "balloon" else "--rate"):
        assert option in done.stdout


def main():
    demo, spoil, command = sys.argv[1:]
    cases = [(name, lambda o=options: case_run(demo, command, o))
             for name, options in {**RUNS, **OWN_RUNS[command]}.items()]
    cases += [("a wrong libhgm is found", lambda: case_spoilt(demo, command, spoil)),
              ("wrong arguments", lambda: case_wrong(demo, command)),
              ("help", lambda: case_help(demo, command))]
    failed = skipped = 0
    print(f"1..{len(cases)}")
    for number, (name, case) in enumerate(cases, 1):
        try:
            reason = case()
        except (AssertionError, subprocess.TimeoutExpired) as wrong:
            print(f"# {wrong}\nnot ok {number} - {name}")
            failed += 1
            continue
        if reason:
            print(f"# skipped: {reason}\nok {number} # SKIP {name}")
            skipped += 1
        else:
            print(f"ok {number} - {name}")
        sys.stdout.flush()
    sys.exit(1 if failed else EXIT_CANNOT if skipped == len(cases) else 0)


if __name__ == "__main__":
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    main()
