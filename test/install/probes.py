#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The static probes in the library: probes.py LIBHGM_SO SOURCE_ROOT

What the library's notes say (readelf), what the table in lib/util/trace.h says, and what
examples/faults.bt asks for must agree: provider, names, and how many arguments.
"""

import pathlib
import re
import subprocess
import sys


def read_notes(library):
    """Name: set of argument counts, of the probes of provider hgm."""
    out = subprocess.run(["readelf", "--notes", "--wide", library], check=True, text=True,
                         capture_output=True).stdout
    found = {}
    for provider, name, args in re.findall(
            r"Provider: (\S+)\s+Name: (\S+)\s+Location[^\n]*\s+Arguments: ?([^\n]*)", out):
        if provider == "hgm":
            found.setdefault(name, set()).add(len(re.findall(r"(?:^| )-?\d@", args)))
    return found


def read_table(path):
    """Name: argument count, of the table in the comment."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = re.match(r"^ \*\t([a-z]+)\t+([^\t]+)\t+\S", line)
        if row:
            found[row[1]] = row[2].count(",") + 1
    return found


def read_script(path):
    """Name: the highest argument that its probe uses, plus one."""
    found = {}
    for part in path.read_text(encoding="utf-8").split("usdt:*:hgm:")[1:]:
        body = part.split("\n}\n")[0]
        used = [int(n) + 1 for n in re.findall(r"\barg(\d)", body)]
        found[re.match(r"\w+", part)[0]] = max(used, default=0)
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[2])
    notes = read_notes(sys.argv[1])
    table = read_table(root / "lib" / "util" / "trace.h")
    script = read_script(root / "examples" / "faults.bt")
    problems = []

    if not table or not script:
        problems.append("the table of lib/util/trace.h or the probes of faults.bt cannot be read")
    for name in sorted(notes.keys() | table.keys()):
        if notes.get(name) != {table.get(name)}:
            problems.append(f"{name}: {table.get(name)} arguments by lib/util/trace.h, "
                            f"{sorted(notes.get(name, []))} in the library")
    for name, used in script.items():
        if used > table.get(name, -1):
            problems.append(f"faults.bt: {name} with {used} arguments is no probe of the library")
    for problem in problems:
        print(problem)
    print(f"{len(notes)} probes, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
