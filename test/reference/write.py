#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""write.py SOURCE_ROOT: bring the pages' SYNOPSIS, ATTRIBUTES and code up to the headers' state

What people write stays as it is; check.py says what only they can mend.
"""

import pathlib
import sys

from headers import Headers
from pages import Page, made_of, roff_prototype


def synopsis(functions):
    lines = [".nf"]
    for header in dict.fromkeys(fn.header for fn in functions):
        lines.append(f".B #include <hgm/{header}>")
    for fn in functions:
        lines += [".P"] + roff_prototype(fn.prototype)
    return lines + [".fi"]


def attributes(functions):
    rows = [f"{fn.name}()\t{fn.thread_word() or 'unknown'}" for fn in functions]
    return ["The words are explained in", ".BR libhgm (7).", ".P", ".TS", "lb lb", "l l.",
            "Interface\tThread safety"] + rows + [".TE"]


def rewrite(page, root, headers):
    functions = [headers.functions[name] for name in page.names if name in headers.functions]
    out, skip_to, origins = [], None, iter(list(page.code()))
    for line in page.lines:
        if skip_to and line.startswith(skip_to):
            skip_to = None
        if skip_to:
            continue
        out.append(line)
        if functions and line in (".SH SYNOPSIS", ".SH ATTRIBUTES"):
            out += synopsis(functions) if line == ".SH SYNOPSIS" else attributes(functions)
            skip_to = ".SH "
        elif line == ".EX":
            origin, block = next(origins)
            made = made_of(origin, root, headers)
            out += block if made is None else made
            skip_to = ".EE"
    return "\n".join(out)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1])
    headers = Headers(root, companions=True)
    for path in sorted((root / "man").glob("*.[1-8]")):
        page = Page(path)
        text = rewrite(page, root, headers)
        if text != "\n".join(page.lines):
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: rewritten")


if __name__ == "__main__":
    main()
