#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does check.py see it? mutate.py SOURCE_ROOT LIBHGM_SO HGM_PC VERSION

A copy of the tree is spoiled in one place at a time, and check.py must say a sentence that names
what is wrong. Prints TAP.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import check
from mutations import CASES

COPIED = ("include", "lib/hgm.map", "nbd/hgm-nbd.map", "lib/caps/caps.c", "man", "examples/restore.c", "README.md")


def copy(root, to):
    for name in COPIED:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, target)
        else:
            shutil.copy(root / name, target)


def spoil(stage, other, edits):
    """Do the edits; each must find its text, or the case asks nothing."""
    for name, old, new in edits:
        text = other[name] if name in other else (stage / name).read_text(encoding="utf-8")
        if old not in text:
            raise ValueError(f"{name} has no '{old}' to be spoiled")
        if name in other:
            other[name] = text.replace(old, new)
        else:
            (stage / name).write_text(text.replace(old, new), encoding="utf-8")


def problems(stage, other, version):
    tree = check.Tree(stage, set(other["exports"].split()), other["pc"], version)
    return check.problems(tree)


def run(root, others, version, edits, want):
    """Nothing, or why the case fails."""
    with tempfile.TemporaryDirectory() as folder:
        stage, other = pathlib.Path(folder), dict(others)
        copy(root, stage)
        try:
            spoil(stage, other, edits)
        except ValueError as error:
            return str(error)
        found = problems(stage, other, version)
        if want is None:
            return "\n".join(found)
        if not any(re.match(want, problem) for problem in found):
            return f"wanted '{want}', got {found or 'nothing'}"
    return None


def status_of(args, edits):
    """What check.py itself exits with, of a spoiled copy."""
    with tempfile.TemporaryDirectory() as folder:
        stage = pathlib.Path(folder)
        copy(pathlib.Path(args[0]), stage)
        spoil(stage, {}, edits)
        return subprocess.run([sys.executable, check.__file__, folder] + args[1:], check=False,
                              stdout=subprocess.DEVNULL).returncode


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    root, library, pc, version = sys.argv[1:]
    others = {"exports": "\n".join(sorted(check.read_exports(library))) + "\n",
              "pc": pathlib.Path(pc).read_text(encoding="utf-8")}
    results = {"nothing": run(pathlib.Path(root), others, version, [], None)}
    for name, (edits, want) in CASES.items():
        results[name] = run(pathlib.Path(root), others, version, edits, want)
    results["its exit status"] = None if (
        status_of(sys.argv[1:], []), status_of(sys.argv[1:], CASES["a prototype that changes"][0])
    ) == (0, 1) else "check.py must exit with 0, and with 1 if something differs"

    print(f"1..{len(results)}")
    for number, (name, why) in enumerate(results.items(), 1):
        print(f"{'not ok' if why else 'ok'} {number} - {name}")
        if why:
            print("# " + why.replace("\n", "\n# "))
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
