#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write what records calls: wrap.py SOURCE_ROOT WRAP_H WRAP_C

WRAP_H turns calls of public functions into calls of their wrappers, WRAP_C has these: by the names
recorded_hgm_NAME for programs with the static library, by the functions' own (RECORD_INSTALLED) for
a shared object that LD_PRELOAD puts before the library.
"""

import pathlib
import re
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "reference"))
from headers import Headers  # noqa: E402

H = """/* written by test/errors/wrap.py */
#ifndef HGM_TEST_WRAP_H
#define HGM_TEST_WRAP_H

#include <hgm/hgm.h>

{declarations}

#ifndef RECORD_NO_NAMES
{names}
#endif
#endif
"""

C = """/* written by test/errors/wrap.py */
#define RECORD_NO_NAMES
#include "wrap.h"

#include <dlfcn.h>

#include "record.h"

const char *const record_names[] = {{
{rows}
}};
const unsigned int record_rows = sizeof(record_names) / sizeof(record_names[0]);

#ifdef RECORD_INSTALLED
#define WRAPPER(name) name
#define GENUINE(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#else
#define WRAPPER(name) recorded_##name
#define GENUINE(name) name
#endif

{wrappers}
"""


def argument_names(prototype):
    inside = re.search(r"\((.*)\);$", prototype)[1]
    return [] if inside == "void" else [re.search(r"(\w+)$", arg)[1] for arg in inside.split(", ")]


def wrapper(row, fn):
    """One function that calls another, and notes what that said."""
    head = fn.prototype[:-1].replace(fn.name + "(", f"WRAPPER({fn.name})(")
    call = f"GENUINE({fn.name})({', '.join(argument_names(fn.prototype))})"
    kind = fn.returns()
    if kind == "void":
        body = f"\t{call};\n\trecord_call({row}, 0);\n"
    else:
        result = {"int": "rc", "int64_t": "rc < 0 ? (int)rc : 0"}.get(kind, "0")
        body = f"\t{kind} rc = {call};\n\n\trecord_call({row}, {result});\n\treturn rc;\n"
    return f"{head}\n{{\n{body}}}\n"


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    functions = Headers(pathlib.Path(sys.argv[1])).functions.values()
    declarations = "\n".join(fn.prototype.replace(fn.name + "(", f"recorded_{fn.name}(")
                             for fn in functions)
    names = "\n".join(f"#define {fn.name} recorded_{fn.name}" for fn in functions)
    rows = "\n".join(f'\t"{fn.name}",' for fn in functions)
    wrappers = "\n".join(wrapper(row, fn) for row, fn in enumerate(functions))
    pathlib.Path(sys.argv[2]).write_text(H.format(declarations=declarations, names=names),
                                         encoding="utf-8")
    pathlib.Path(sys.argv[3]).write_text(C.format(rows=rows, wrappers=wrappers), encoding="utf-8")


if __name__ == "__main__":
    main()
