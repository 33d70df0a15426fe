#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does compare.py see it? mutate.py SOURCE_ROOT

It is given a record in which everything is as documented, spoiled in one place at a time, and must
exit and speak accordingly. Prints TAP.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import compare

# What is done, what compare.py must say, and its exit status
CASES = {
    "nothing": (
        lambda r: None,
        r"\d+ public functions, \d+ documented errors, 0 not seen, 0 undocumented", 0),
    "a function that is not called through the installed header": (
        lambda r: r.installed.pop("hgm_wait"),
        "hgm_wait: no program calls it through the installed header", 1),
    "a function that never succeeds": (
        lambda r: r.installed.update(hgm_wait={"EIO"}), "hgm_wait: no test saw it succeed", 1),
    "a function that succeeds on kernels with HGM only": (
        lambda r: r.installed.update(hgm_split={"EINVAL"}), ".* 0 not seen, 0 undocumented", 0),
    "a function that does not succeed even there": (
        lambda r: (r.installed.update(hgm_split={"EINVAL"}), r.calls["hgm_split"].remove("")),
        "hgm_split: no test saw it succeed", 1),
    "an error that no test saw": (
        lambda r: r.calls["hgm_wait"].remove("ETIMEDOUT"),
        "hgm_wait: no test saw -ETIMEDOUT, which hgm/engine.h promises", 1),
    "an error of a struct's comment that no test saw": (
        lambda r: r.calls["hgm_uffd_copy"].remove("ESRCH"),
        "hgm_uffd_copy: no test saw -ESRCH", 1),
    "an error that is only seen with the installed library": (
        lambda r: (r.calls["hgm_wait"].remove("EIO"), r.installed["hgm_wait"].add("EIO")),
        ".* 0 not seen, 0 undocumented", 0),
    "an error that is not documented": (
        lambda r: r.calls["hgm_wait"].add("EPIPE"),
        r"hgm_wait: returned -EPIPE \(program\), which hgm/engine.h does not name", 1),
    "an error that others decide on": (
        lambda r: r.calls["hgm_region_create"].add("EPIPE"), ".* 0 not seen, 0 undocumented", 0),
    "an error that no test saw, where tests were skipped": (
        lambda r: (r.calls["hgm_wait"].remove("EIO"), r.skip()),
        "# skipped: 1 not seen, as tests were skipped; first: hgm_wait: no test saw -EIO", 77),
    "an error that is not documented, where tests were skipped": (
        lambda r: (r.calls["hgm_wait"].remove("EIO"), r.calls["hgm_wait"].add("EPIPE"),
                   r.skip()),
        "hgm_wait: returned -EPIPE", 1),
}


class Record:
    """What tests have seen, as sets of codes of each function."""

    def __init__(self, headers):
        self.calls = {fn.name: fn.errors(headers.types) | {""}
                      for fn in headers.functions.values()}
        self.installed = {name: {""} for name in self.calls}
        self.skipped = False

    def skip(self):
        self.skipped = True

    def write(self, folder):
        number_of = {code: number for number, code in compare.CODES.items()} | {"": 0}
        for kind, table in (("calls", self.calls), ("installed", self.installed)):
            rows = b""
            for name, codes in table.items():
                numbers = {number_of[code] for code in codes}
                rows += name.encode().ljust(compare.NAME_BYTES, b"\0")
                rows += bytes(n in numbers for n in range(compare.ERRNOS))
            (folder / f"program.{kind}").write_bytes(rows)
        if self.skipped:
            (folder / "skipped").touch()


def run(root, headers, case):
    """Nothing, or why the case fails."""
    spoil, want, status = case
    record = Record(headers)
    spoil(record)
    with tempfile.TemporaryDirectory() as folder:
        record.write(pathlib.Path(folder))
        done = subprocess.run([sys.executable, compare.__file__, root, folder], check=False,
                              text=True, capture_output=True)
    if done.returncode != status:
        return f"exits with {done.returncode}, not {status}: {done.stdout}{done.stderr}"
    if not any(re.match(want, line) for line in done.stdout.splitlines()):
        return f"wanted '{want}', got '{done.stdout}'"
    return None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    headers = compare.Headers(pathlib.Path(sys.argv[1]))
    failed = 0
    print(f"1..{len(CASES)}")
    for number, (name, case) in enumerate(CASES.items(), 1):
        why = run(sys.argv[1], headers, case)
        failed += bool(why)
        print(f"{'not ok' if why else 'ok'} {number} - {name}")
        if why:
            print("# " + why.replace("\n", "\n# "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
