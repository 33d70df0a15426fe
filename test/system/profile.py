#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system calls that libhgm_sandbox(7) lists, as an array of C: profile.py PAGE OUTPUT_H"""

import pathlib
import re
import sys

ENTRY = re.compile(r'^\.TP\n\.B (\w+)\n\.\\" calls\n((?:(?!\.).*\n)+)', re.MULTILINE)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    page = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    lines = ["/* written by test/system/profile.py */"]
    for phase, calls in ENTRY.findall(page):
        for names in " ".join(calls.split()).split(", "):
            lines.append(f'{{ "{phase}", "{names}" }},')
    pathlib.Path(sys.argv[2]).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
