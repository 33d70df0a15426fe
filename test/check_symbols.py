#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One interface, told in four places: check_symbols.py SOURCE_ROOT LIBHGM_SO VERSION

Public headers, lib/hgm.map, what the shared library exports, and the version must agree; nothing
of the RCU library may show in a public header; each public function says which thread may call it
and since when.
"""

import pathlib
import re
import subprocess
import sys

problems = []


def differ(name_a, a, name_b, b):
    for sym in sorted(a - b):
        problems.append(f"{sym}: in {name_a}, not in {name_b}")
    for sym in sorted(b - a):
        problems.append(f"{sym}: in {name_b}, not in {name_a}")


def read_headers(folder):
    """The names of all functions that are marked HGM_PUBLIC."""
    public = set()
    for path in sorted(folder.glob("*.h")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\b(u?rcu|call_rcu|synchronize_rcu)", text, re.IGNORECASE):
            problems.append(f"{path.name}: speaks of RCU, which is a private detail")
        comment = ""
        for part in re.split(r"(/\*\*?.*?\*/)", text, flags=re.DOTALL):
            if part.startswith("/*"):
                comment = part
                continue
            code = re.sub(r"^#.*?(?<!\\)$", "", part, flags=re.DOTALL | re.MULTILINE)
            for decl in re.findall(r"[^;{}]+;", code):
                name = re.search(r"\b(hgm_\w+)\(", decl)
                if not name or "typedef" in decl:
                    continue
                if "HGM_PUBLIC" not in decl:
                    problems.append(f"{path.name}: {name[1]} is not marked HGM_PUBLIC")
                    continue
                public.add(name[1])
                for words in ("Calling thread:", "Since:"):
                    if words not in comment:
                        problems.append(f"{path.name}: {name[1]}: its comment lacks '{words}'")
                comment = ""
    return public


def read_map(path):
    """(names, version of the newest node) of a version script."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    nodes = re.findall(r"HGM_(\d+\.\d+)\s*\{", text)
    return set(re.findall(r"\b(hgm_\w+)\s*;", text)), nodes[-1]


def read_exports(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], check=True, text=True,
                         capture_output=True).stdout
    found = set()
    for line in out.splitlines():
        kind, name = line.split()[-2:]
        if kind != "A":  # the version nodes themselves
            found.add(name.split("@")[0])
    return found


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1])
    headers = read_headers(root / "include" / "hgm")
    mapped, node = read_map(root / "lib" / "hgm.map")
    exports = read_exports(sys.argv[2])
    version = sys.argv[3]

    differ("include/hgm", headers, "lib/hgm.map", mapped)
    differ("lib/hgm.map", mapped, "the shared library", exports)

    text = (root / "include" / "hgm" / "version.h").read_text(encoding="utf-8")
    parts = [re.search(rf"HGM_VERSION_{p} (\d+)", text)[1] for p in ("MAJOR", "MINOR", "PATCH")]
    if ".".join(parts) != version:
        problems.append(f"version.h says {'.'.join(parts)}, meson.build says {version}")
    if node != ".".join(parts[:2]):
        problems.append(f"the newest node of hgm.map is {node}, the version is {version}")

    for problem in problems:
        print(problem)
    print(f"{len(headers)} public functions, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
