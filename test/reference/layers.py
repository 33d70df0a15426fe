#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Do the modules of lib/ keep to lib/MODULES? layers.py SOURCE_ROOT LIBHGM_A [mutate]

A file includes headers of its own folder, and those of modules above that lib/MODULES names. An
object file calls only what its own module and those above define. With "mutate", a copy of the tree
is spoiled in one place at a time, and the check must say so. Prints TAP then.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)


def modules(root):
    """Module: its doors, in their order."""
    table = {}
    for line in (root / "lib/MODULES").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, *doors = line.split()
            table[name] = doors
    return table


def symbols(archive):
    """Object: (module, what it defines, what it needs). Objects are named MODULE_FILE.c.o."""
    out = subprocess.run(["nm", archive], check=True, capture_output=True, text=True).stdout
    objects, now = {}, None
    for line in out.splitlines():
        if line.endswith(".c.o:"):
            now = line[:-1]
            objects[now] = (set(), set())
        elif now and line:
            *_, kind, name = line.split()
            if kind == "U":
                objects[now][1].add(name)
            elif kind in "TDBRVW":
                objects[now][0].add(name)
    return objects


def check_files(root, table):
    order = list(table)
    folders = sorted(p.name for p in (root / "lib").iterdir() if p.is_dir())
    if folders != sorted(order):
        yield f"lib/ has the folders {' '.join(folders)}, lib/MODULES others"
        return
    for path in sorted((root / "lib").glob("*/*.[ch]")):
        module, name = path.parent.name, f"{path.parent.name}/{path.name}"
        for header in INCLUDE.findall(path.read_text(encoding="utf-8")):
            if "/" not in header:
                if not (path.parent / header).exists():
                    yield f"lib/{name} includes {header}, which is not in its folder"
                continue
            other, file = header.split("/", 1)
            if other not in table:
                yield f"lib/{name} includes {header}: there is no module {other}"
            elif order.index(other) >= order.index(module):
                yield f"lib/{name} includes {header}, which is not above it"
            elif file not in table[other]:
                yield f"lib/{name} includes {header}, which is private to {other}"
    for module, doors in table.items():
        for door in doors:
            if not (root / "lib" / module / door).exists():
                yield f"lib/MODULES: there is no {module}/{door}"


def module_of(name, table):
    return next((m for m in table if name.startswith(m + "_")), None)


def check_calls(objects, table):
    order = list(table)
    defined = {s: o for o, (defines, _) in objects.items() for s in defines}
    for name, (_, needs) in sorted(objects.items()):
        module = module_of(name, table)
        if module is None:
            yield f"{name}: of no module"
            continue
        for symbol in sorted(needs):
            other = module_of(defined[symbol], table) if symbol in defined else module
            if other and order.index(other) > order.index(module):
                yield f"{name} uses {symbol}, which {other} defines"


def cycles(objects, table):
    """Objects of a module that need each other in a circle: more than two are too many."""
    defined = {s: o for o, (defines, _) in objects.items() for s in defines}
    near = {o: {defined[s] for s in needs if s in defined
                and module_of(defined[s], table) == module_of(o, table)} - {o}
            for o, (_, needs) in objects.items()}
    reach = {}
    for start in near:
        seen, todo = set(), [start]
        while todo:
            for there in near[todo.pop()]:
                if there not in seen:
                    seen.add(there)
                    todo.append(there)
        reach[start] = seen
    told = set()
    for o in sorted(near):
        circle = {p for p in reach[o] if o in reach[p]} | {o}
        if len(circle) > 2 and not circle & told:
            told |= circle
            yield "in a circle: " + " ".join(sorted(circle))


def problems(root, objects):
    table = modules(root)
    return [*check_files(root, table), *check_calls(objects, table), *cycles(objects, table)]


CASES = [
    ("an include from below",
     [("lib/map/map.c", '#include "leaf.h"', '#include "leaf.h"\n#include "region/hgm.h"')], None,
     "lib/map/map.c includes region/hgm.h, which is not above it"),
    ("a private header from outside",
     [("lib/wp/dirty.c", '#include "dirty.h"', '#include "dirty.h"\n#include "pager/work.h"')],
     None, "lib/wp/dirty.c includes pager/work.h, which is private to pager"),
    ("a header of no folder",
     [("lib/wp/dirty.c", '#include "dirty.h"', '#include "dirty.h"\n#include "bits.h"')], None,
     "lib/wp/dirty.c includes bits.h, which is not in its folder"),
    ("a call from below", [], ("map_map.c.o", "hgm_region_wake"),
     "map_map.c.o uses hgm_region_wake, which region defines"),
    ("a circle", [], ("util_log.c.o", "hgm_opts_in"),
     "in a circle: util_error.c.o util_log.c.o util_opts.c.o"),
    ("a folder of no module", [("lib/MODULES", "uffd", "ufd")], None, "lib/MODULES others"),
]


def mutate(root, objects):
    print(f"1..{len(CASES)}")
    failed = False
    for number, (name, edits, call, want) in enumerate(CASES, 1):
        with tempfile.TemporaryDirectory() as folder:
            stage = pathlib.Path(folder)
            shutil.copytree(root / "lib", stage / "lib")
            spoiled = {o: (set(d), set(n)) for o, (d, n) in objects.items()}
            for file, old, new in edits:
                text = (stage / file).read_text(encoding="utf-8")
                assert old in text, f"{file} has no '{old}'"
                (stage / file).write_text(text.replace(old, new, 1), encoding="utf-8")
            if call:
                spoiled[call[0]][1].add(call[1])
            if name == "a circle":
                spoiled["util_opts.c.o"][1].add("hgm_fail")
                spoiled["util_error.c.o"][1].add("hgm_log")
            found = "\n".join(problems(stage, spoiled))
        good = want in found
        failed |= not good
        print(f"{'' if good else 'not '}ok {number} - {name}")
        if not good:
            print(f"# wanted '{want}', got: {found or 'nothing'}")
    return failed


def main():
    root, objects = pathlib.Path(sys.argv[1]), symbols(sys.argv[2])
    if sys.argv[3:] == ["mutate"]:
        sys.exit(mutate(root, objects))
    found = problems(root, objects)
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
