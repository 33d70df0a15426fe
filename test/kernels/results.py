#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a kernel in QEMU is to run, and what came of it.

results.py plan BUILDDIR [TEST...]
                              the plan for init.c: the system tests and the examples, or those of
                              them that match one of the patterns TEST
results.py collect DIR EXIT   DIR/results.log and DIR/console.log, and QEMU's exit status, become
                              DIR/meson-logs/testlog.json, as `meson test` writes it
"""

import fnmatch
import json
import os
import re
import subprocess
import sys

EXIT_SKIPPED = 77
EXIT_TIMED_OUT = 124
EXAMPLES = {
    "example_hgm-probe": "hgm-probe-static",
    "example_info": "info-static",
    "example_live": "live-static /tmp/live",
    "example_prefetch": "prefetch-static",
    "example_restore": "restore-static /bin/demo-static",
    "example_source_fn": "source_fn-static",
    "example_thin": "thin-static",
    "example_demo": "demo-static --threads --size 16"
                    " --only hugetlb-2m --only shmem --only shmem-lazy",
    "example_demo_balloon": "demo-static balloon --threads --size 16",
    "example_demo_dirty": "demo-static dirty --threads --size 16",
    "example_demo_snapshot": "demo-static snapshot --threads --size 16",
}
EXAMPLE_LIMIT = 120

# What a healthy kernel does not say. Stalls are noted by the emulated machine's own clock.
COMPLAINT = re.compile(
    r"BUG:|WARNING:|Oops|kernel BUG|Call Trace|general protection|stall|soft lockup"
    r"|blocked for more than|Out of memory|Kernel panic|Bad page")


def plan(build, patterns):
    found = {}
    left_out = {"timing"}
    if os.environ.get("HGM_KERNELS_SHORT") == "true":
        left_out.add("long")
    for test in json.loads(subprocess.check_output(["meson", "introspect", "--tests", build])):
        suites = {suite.split(":")[-1] for suite in test["suite"]}
        name = os.path.basename(test["cmd"][0])
        if "system" in suites and "nbd" not in suites and (patterns or not suites & left_out):
            found[name] = f"{2 * test['timeout']} /tests/{name}"
    for name, command in EXAMPLES.items():
        found[name] = f"{EXAMPLE_LIMIT} /bin/{command}"
    for pattern in patterns:
        if not fnmatch.filter(found, pattern):
            sys.exit(f"results.py: no test is named {pattern}")
    for name, what in found.items():
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            print(name, what)


def entry(name, status, seconds, stdout):
    result = {0: "OK", EXIT_SKIPPED: "SKIP", EXIT_TIMED_OUT: "TIMEOUT"}.get(status, "FAIL")
    return {"name": name, "result": result, "returncode": status, "duration": seconds,
            "stdout": stdout, "stderr": ""}


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read().replace("\r", "").split("\n")
    except FileNotFoundError:
        return []


def programs(lines, planned):
    """The entries of all programs, and whether the end was reached."""
    found = {}
    name, output, whole = None, [], False
    for line in lines:
        words = line.split(" ")
        if line.startswith("@ begin "):
            name, output = words[2], []
        elif line.startswith("@ end ") and words[2] == name:
            status = os.waitstatus_to_exitcode(int(words[3]))
            found[name] = entry(name, status, int(words[4]) / 1000, "\n".join(output))
            name = None
        elif line == "@ all":
            whole = True
        elif name:
            output.append(line)
    if name:
        output.append("the machine ended, or was ended, here")
        found[name] = entry(name, 1, 0, "\n".join(output))
    for missing in planned:
        if missing not in found:
            found[missing] = entry(missing, 1, 0, "it was never run")
    return list(found.values()), whole


def kernel(lines, whole, qemu):
    # Of the kernel's own lines: init names the programs there, too.
    complaints = [i for i, line in enumerate(lines)
                  if line.startswith("[") and COMPLAINT.search(line)]
    said = []
    for i in complaints[:10]:
        said += lines[max(i - 2, 0):i + 30] + ["..."]
    if not whole or qemu:
        said += lines[-30:]
        said.append(f"QEMU ended with {qemu} (124: out of time)")
    return entry("kernel_log", 1 if said else 0, 0, "\n".join(said))


def collect(directory, qemu):
    planned = [line.split(" ")[0] for line in read(directory + "/root/plan") if line]
    if not planned:
        sys.exit(f"results.py: nothing was planned in {directory}")
    entries, whole = programs(read(directory + "/results.log"), planned)
    entries.append(kernel(read(directory + "/console.log"), whole, qemu))
    os.makedirs(directory + "/meson-logs", exist_ok=True)
    with open(directory + "/meson-logs/testlog.json", "w", encoding="utf-8") as log:
        for number, one in enumerate(entries, 1):
            json.dump(one, log)
            log.write("\n")
            print(f"{number:2}/{len(entries)} {one['name']:24}{one['result']:8}"
                  f"{one['duration']:8.2f}s")


def main():
    if len(sys.argv) >= 3 and sys.argv[1] == "plan":
        plan(sys.argv[2], sys.argv[3:])
    elif len(sys.argv) == 4 and sys.argv[1] == "collect":
        collect(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
