#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One interface, told in many places: check.py SOURCE_ROOT LIBHGM_SO HGM_PC VERSION

The installed headers, lib/hgm.map, what the shared library exports, the manual pages, hgm.pc and
the version must say the same. What differs is named, a line each.

The pages are written by people and kept as they are read: a checkout, a tarball and a patch show
them, and who packages them needs no generator. What they copy from headers and programs is brought
in by write.py (ninja man-update) and compared here, so that it cannot go stale unseen.
"""

import pathlib
import re
import subprocess
import sys

from headers import COMPANIONS, Headers
from pages import CODE_WIDTH, Page, made_of, plain

# Pages of others that ours refer to. One that is not here is most likely a slip.
FOREIGN = {
    "close(2)", "connect(2)", "eventfd(2)", "execve(2)", "fallocate(2)", "fcntl(2)", "fork(2)",
    "fsync(2)", "ftruncate(2)", "ioctl(2)", "ioctl_userfaultfd(2)", "lseek(2)", "madvise(2)",
    "memfd_create(2)", "mincore(2)", "mlock(2)", "mmap(2)", "mprotect(2)", "mremap(2)",
    "munmap(2)", "nbd_connect_uri(3)", "nbdkit(1)", "open(2)", "pidfd_open(2)", "pkg-config(1)",
    "poll(2)", "proc(5)", "process_madvise(2)", "pthread_atfork(3)", "pthread_create(3)",
    "ptrace(2)", "read(2)", "recv(2)", "recvmsg(2)", "restart_syscall(2)", "signal(7)",
    "snprintf(3)", "strerror(3)", "sysctl(8)", "tmpfs(5)", "uname(2)", "unix(7)", "userfaultfd(2)",
    "valgrind(1)", "write(2)",
}
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "RETURN VALUE", "ERRORS", "ATTRIBUTES", "HISTORY",
            "EXAMPLES", "SEE ALSO"]


class Tree:
    """What there is to compare."""

    def __init__(self, root, exports, pc, version):
        self.root = root
        self.exports = exports
        self.pc = pc
        self.version = version
        self.headers = Headers(root, companions=True)
        self.pages = [Page(path) for path in sorted((root / "man").glob("*.[1-8]"))]
        self.reference = [page for page in self.pages if page.path.suffix == ".3"]
        self.nodes, self.mapped = read_map(root / "lib" / "hgm.map")


def read_map(path):
    """The versions of a map's nodes, and the functions that it exports."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return (re.findall(r"HGM_(?:NBD_)?(\d+\.\d+)\s*\{", text),
            set(re.findall(r"\b(hgm_\w+)\s*;", text)))


def differ(name_a, a, name_b, b):
    for sym in sorted(a - b):
        yield f"{sym}: in {name_a}, not in {name_b}"
    for sym in sorted(b - a):
        yield f"{sym}: in {name_b}, not in {name_a}"


def check_names(tree):
    """Who is there: headers, map, exports, pages."""
    functions = tree.headers.functions.values()
    public = {fn.name for fn in functions if fn.header not in COMPANIONS}
    named = [name for page in tree.reference for name in page.names]
    yield from differ("the headers", public, "lib/hgm.map", tree.mapped)
    yield from differ("lib/hgm.map", tree.mapped, "the shared library", tree.exports)
    for header, name in COMPANIONS.items():
        nodes, mapped = read_map(tree.root / name)
        yield from differ(header, {fn.name for fn in functions if fn.header == header},
                          name, mapped)
        if nodes[-1:] != tree.nodes[-1:]:
            yield f"{name}: its newest node is not of {tree.nodes[-1]}"
    yield from differ("the headers", set(tree.headers.functions), "a page's NAME", set(named))
    for name in sorted(set(n for n in named if named.count(n) > 1)):
        yield f"{name}: in the NAME of more than one page"
    for name in sorted(n for n in tree.exports if "urcu" in n or "rcu_" in n):
        yield f"{name}: exported, and of RCU, which is a private detail"


def check_build(tree):
    """What the build installs as pages and compiles as programs: all that there is."""
    listed = (tree.root / "man" / "meson.build").read_text(encoding="utf-8")
    installed = {page: re.findall(r"'(\w+)'", names) for page, names in
                 re.findall(r"'(\w+\.3)': \[([^\]]*)\]", listed)}
    for page in tree.reference:
        names = [page.path.stem] + installed.pop(page.path.name, [])
        if names != page.names:
            yield (f"man/meson.build installs {page.path.name} as {', '.join(names)}; "
                   f"its NAME says {', '.join(page.names)}")
    for name in installed:
        yield f"man/meson.build installs {name}, which does not exist"
    for page in tree.pages:
        if page.path.suffix != ".3" and f"'{page.path.name}'" not in listed:
            yield f"{page.path.name}: not installed by man/meson.build"
    sources = {path.stem for path in (tree.root / "man" / "examples").glob("*.c")}
    built = (tree.root / "man" / "examples" / "meson.build").read_text(encoding="utf-8")
    yield from differ("man/examples", sources, "its meson.build",
                      set(re.findall(r"^  '(\w+)'", built, re.MULTILINE)))


def check_capabilities(tree):
    """libhgm_caps(7) has all that lib/caps/caps.c tries, and no other."""
    text = (tree.root / "lib" / "caps" / "caps.c").read_text(encoding="utf-8")
    rows = set(re.findall(r'^\t\{ "([a-z0-9_.]+)", hgm_probe', text, re.MULTILINE))
    for page in tree.pages:
        if page.path.name == "libhgm_caps.7":
            tags = "\n".join(re.findall(r"^\.TP\n(\.BR? .*)$", page.text(), re.MULTILINE))
            yield from differ("lib/caps/caps.c", rows, page.path.name,
                              set(re.findall(r"\b(?<!\.)[a-z][a-z0-9_.]+\b", tags)))


def check_function(page, fn):
    """What a page says of one function, against the header."""
    where = f"{page.path.name}: {fn.name}:"
    prototype = page.prototypes().get(fn.name)
    if prototype != fn.prototype:
        yield f"{where} SYNOPSIS has '{prototype}', hgm/{fn.header} has '{fn.prototype}'"
    if fn.header not in page.includes():
        yield f"{where} SYNOPSIS does not include <hgm/{fn.header}>"
    word, want = page.thread_words().get(fn.name), fn.thread_word()
    if not word:
        yield f"{where} ATTRIBUTES has no thread safety for it"
    elif word != want:
        yield f"{where} ATTRIBUTES says '{word}', hgm/{fn.header} comes to '{want}'"
    history = page.text().partition("\n.SH HISTORY\n")[2].partition("\n.SH ")[0]
    if not re.search(rf"\b{fn.name}\b", history):
        yield f"{where} not in HISTORY"
    since = re.match(r"\d+\.\d+", fn.clause("Since") or "?")
    for version in sorted(fn.kernels()) + ([f"libhgm {since[0]}"] if since else []):
        if version not in history:
            yield f"{where} HISTORY lacks {version}, which hgm/{fn.header} names"


def check_reference(tree):
    """Pages of section 3: sections, and all that a header says."""
    for page in tree.reference:
        name = page.path.name
        if list(page.sections) != SECTIONS:
            yield f"{name}: its sections are {', '.join(page.sections)}, not {', '.join(SECTIONS)}"
        functions = [tree.headers.functions[n] for n in page.names if n in tree.headers.functions]
        for fn in functions:
            yield from check_function(page, fn)
        for dead in sorted((set(page.prototypes()) | set(page.thread_words())) - set(page.names)):
            yield f"{name}: {dead}: in SYNOPSIS or ATTRIBUTES, not in NAME"
        wanted = set().union(*(fn.errors(tree.headers.types) for fn in functions))
        errors = page.errors()
        yield from (f"{name}: {d}" for d in differ("the header's comments", wanted, "ERRORS",
                                                   set(errors)))
        for code in sorted(code for code in errors if not errors[code]):
            yield f"{name}: ERRORS gives no cause for {code}"
        if not any(origin[0] == "file" for origin, _ in page.code()):
            yield f"{name}: EXAMPLES shows no program"


def check_text(tree):
    """All pages: titles, what they refer to, names that must exist, code."""
    have = {f"{name}({page.path.suffix[1:]})" for page in tree.pages for name in page.names}
    for page in tree.pages:
        name = page.path.name
        title = page.title[0].lower() + "." + page.title[1]
        if title != name.lower():
            yield f"{name}: its title is {title}"
        release = "libhgm " + ".".join(tree.version.split(".")[:2])
        if release not in " ".join(page.lines):
            yield f"{name}: is not of {release}"
        for ref in sorted(f"{n}({s})" for n, s in page.references()):
            if ref not in have and ref not in FOREIGN:
                yield f"{name}: refers to {ref}, which does not exist"
        for token in sorted(set(re.findall(r"\b(?:hgm|HGM)_\w+", page.text()))):
            stem = token.endswith("_") and any(t.startswith(token) for t in tree.headers.tokens)
            if token not in tree.headers.tokens and not stem and f"{token}(7)" not in have:
                yield f"{name}: speaks of {token}, which no header has"
        for origin, block in page.code():
            made = made_of(origin, tree.root, tree.headers)
            if made is None:
                yield f"{name}: code that is of no header and no file: '{(block + [''])[0]}'"
            elif made != block:
                yield f"{name}: its copy of {origin[2] or origin[1]} differs from {origin[1]}"
            elif max(len(plain(line)) for line in made) > CODE_WIDTH:
                yield f"{name}: {origin[1]} has lines of more than {CODE_WIDTH} columns"


def check_guide(tree):
    """libhgm(7) leads to every page."""
    guide = next(page for page in tree.pages if page.path.name == "libhgm.7")
    for page in tree.pages:
        if page is not guide and (page.path.stem, page.path.suffix[1:]) not in guide.references():
            yield f"{page.path.name}: libhgm(7) does not refer to it"


def check_contents(tree):
    """Each field and each constant has words somewhere."""
    words = {}
    for page in tree.pages:
        words[page.path.name] = set(re.findall(r"\w+", page.prose()))
    everywhere = set().union(*words.values())
    for page in tree.reference:
        for origin, _ in page.code():
            fields = tree.headers.types[origin[2]].fields if origin[2] in tree.headers.types else []
            for field in fields:
                if field not in words[page.path.name] and field != "reserved":
                    yield f"{page.path.name}: says nothing of {field} of struct {origin[2]}"
    shown = {o[2] for page in tree.pages for o, _ in page.code()}
    for missing in sorted(set(tree.headers.types) - shown - {"hgm_answer"}):
        yield f"{missing}: no page shows this type"
    own = re.findall(r"\bHGM_\w+", "".join(tree.headers.text.get(n, "") for n in
                                           ("base.h", "uapi.h", "hgm.h")))
    for constant in sorted(tree.headers.constants - set(own) - everywhere):
        yield f"{constant}: no page speaks of it"


def check_readme(tree):
    """README shows a whole program, which is compiled, and leads to what exists."""
    text = (tree.root / "README.md").read_text(encoding="utf-8")
    program = (tree.root / "examples" / "restore.c").read_text(encoding="utf-8")
    shown = re.findall(r"^```c\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if shown != [program[program.index("#include"):]]:
        yield "README.md: its program differs from examples/restore.c"
    have = {f"{name}({page.path.suffix[1:]})" for page in tree.pages for name in page.names}
    for ref in sorted(set(re.findall(r"\b(?:lib)?hgm\w*\(\d\)", text)) - have):
        yield f"README.md: refers to {ref}, which does not exist"


def check_release(tree):
    """The version, wherever it stands, and the flags that hgm.pc gives to users."""
    text = tree.headers.text["version.h"]
    parts = [re.search(rf"HGM_VERSION_{p} (\d+)", text)[1] for p in ("MAJOR", "MINOR", "PATCH")]
    if ".".join(parts) != tree.version:
        yield f"version.h says {'.'.join(parts)}, meson.build says {tree.version}"
    if tree.nodes[-1] != ".".join(parts[:2]):
        yield f"the newest node of hgm.map is {tree.nodes[-1]}, the version is {tree.version}"
    pc = dict(re.findall(r"^(\S+): (.*)$", tree.pc, re.MULTILINE))
    if pc.get("Version") != tree.version:
        yield f"hgm.pc is of {pc.get('Version')}, meson.build says {tree.version}"
    known = {"Cflags": ["-I${includedir}"], "Libs": ["-L${libdir}", "-lhgm"]}
    for key, flags in known.items():
        for flag in pc.get(key, "").split():
            if flag not in flags:
                yield f"hgm.pc: {key} has {flag}, which users do not need"


def problems(tree):
    found = list(tree.headers.problems)
    for check in (check_names, check_build, check_reference, check_text, check_guide,
                  check_contents, check_capabilities, check_readme, check_release):
        found += check(tree)
    return found


def read_exports(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], check=True, text=True,
                         capture_output=True).stdout
    rows = [line.split()[-2:] for line in out.splitlines()]
    return {name.split("@")[0] for kind, name in rows if kind != "A"}  # A: the nodes themselves


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    pc = pathlib.Path(sys.argv[3]).read_text(encoding="utf-8")
    tree = Tree(pathlib.Path(sys.argv[1]), read_exports(sys.argv[2]), pc, sys.argv[4])
    found = problems(tree)
    for problem in found:
        print(problem)
    if found:
        print("ninja man-update brings into the pages what they copy from headers and programs")
    print(f"{len(tree.headers.functions)} public functions, {len(tree.pages)} pages, "
          f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
