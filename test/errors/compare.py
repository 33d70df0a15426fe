#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the headers promise, and what tests saw: compare.py SOURCE_ROOT [RECORD]

RECORD, else $HGM_RECORD, is the folder of what was noted while all tests ran (record.h). A line for
each public function that no program against the installed library has called, and with success
(where that takes a kernel with HGM a test's is enough), for each documented error that no test saw,
and for each error that was seen and is not documented.
"""

import errno
import os
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "reference"))
from headers import Headers  # noqa: E402

NAME_BYTES, ERRNOS = 48, 160  # of a row, as in record.h
EXIT_SKIPPED = 77

# Python lacks one, and has two names for others.
CODES = errno.errorcode | {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK",
                            133: "EHWPOISON"}


def read_record(folder):
    """{(function, code): programs}, of those with the static and those with the installed library;
    code "" is success."""
    seen = {"calls": {}, "installed": {}}
    for path in sorted(folder.glob("*.*")):
        table, data = seen.get(path.suffix[1:]), path.read_bytes()
        for at in range(0, len(data) if table is not None else 0, NAME_BYTES + ERRNOS):
            name = data[at:at + NAME_BYTES].rstrip(b"\0").decode()
            row = data[at + NAME_BYTES:at + NAME_BYTES + ERRNOS]
            for number in (number for number, byte in enumerate(row) if byte):
                code = CODES.get(number, str(number)) if number else ""
                table.setdefault((name, code), []).append(path.stem)
    return seen["calls"], seen["installed"]


def missing(headers, calls, installed):
    """What was not seen."""
    called = {name for name, _ in installed}
    for fn in headers.functions.values():
        if fn.name not in called:
            yield f"{fn.name}: no program calls it through the installed header"
        elif (fn.name, "") not in (calls if fn.needs_hgm() else installed):
            yield f"{fn.name}: no test saw it succeed"
        for code in sorted(fn.errors(headers.types)):
            pair = (fn.name, code)
            if pair not in calls and pair not in installed:
                yield f"{fn.name}: no test saw -{code}, which hgm/{fn.header} promises"


def undocumented(headers, calls, installed):
    """What was seen and should not be."""
    for name, code in sorted(set(calls) | set(installed)):
        fn = headers.functions[name]
        if code and code not in fn.errors(headers.types) and not fn.passes_on(headers.types):
            who = ", ".join(calls.get((name, code), []) + installed.get((name, code), []))
            yield f"{name}: returned -{code} ({who}), which hgm/{fn.header} does not name"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = sys.argv[2] if len(sys.argv) == 3 else os.environ.get("HGM_RECORD")
    if not folder:
        print("# skipped: HGM_RECORD is not set: `./run test` without arguments sets it")
        return EXIT_SKIPPED
    headers = Headers(pathlib.Path(sys.argv[1]))
    calls, installed = read_record(pathlib.Path(folder))
    unseen = list(missing(headers, calls, installed))
    bad = list(undocumented(headers, calls, installed))
    for line in unseen + bad:
        print(line)
    promised = sum(len(fn.errors(headers.types)) for fn in headers.functions.values())
    print(f"{len(headers.functions)} public functions, {promised} documented errors, "
          f"{len(unseen)} not seen, {len(bad)} undocumented")
    if unseen and not bad and pathlib.Path(folder, "skipped").exists():
        print(f"# skipped: {len(unseen)} not seen, as tests were skipped; first: {unseen[0]}")
        return EXIT_SKIPPED
    return 1 if unseen or bad else 0


if __name__ == "__main__":
    sys.exit(main())
