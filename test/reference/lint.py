#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""lint.py FOLDER: manual pages as mandoc and groff see them; exits 77 if neither is there"""

import pathlib
import shutil
import subprocess
import sys

# -W style also asks of mdoc(7) pages whether this machine has the pages that they refer to: there
# only warnings count. groff -ww: every warning that there is; -z: no output.
TOOLS = (
    ["mandoc", "-Tlint"],
    ["groff", "-mandoc", "-t", "-ww", "-z", "-Tutf8", "-rLL=78n"],
)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pages = sorted(pathlib.Path(sys.argv[1]).glob("*.[1-8]"))
    found, skipped = 0, []
    for tool in TOOLS:
        if not shutil.which(tool[0]):
            skipped.append(tool[0])
            continue
        for page in pages:
            is_mdoc = "\n.Dd " in page.read_text(encoding="utf-8")
            level = ["-Wwarning"] if is_mdoc and tool[0] == "mandoc" else []
            run = subprocess.run(tool + level + [str(page)], text=True, check=False,
                                 capture_output=True)
            said = (run.stdout + run.stderr).strip()
            if said or run.returncode:
                found += 1
                print(f"{tool[0]}: {page.name}: {said or run.returncode}")
    for name in skipped:
        print(f"# skipped: no {name} here")
    print(f"{len(pages)} pages, {found} with problems")
    if found:
        return 1
    return 77 if len(skipped) == len(TOOLS) else 0


if __name__ == "__main__":
    sys.exit(main())
