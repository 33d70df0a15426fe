# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages, taken apart, and the parts of them that are made of headers and programs."""

import re
import shlex

# Columns that a line of code has in a page of 80.
CODE_WIDTH = 72

# What a line of a page says where the next .EX block comes from.
ORIGIN = re.compile(r'^\.\\" (from|file) ([\w./-]+)(?:: (\w+))?$')


def plain(text):
    """Roff without the escapes that the pages use."""
    for escape, char in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ha", "^"), (r"\(ti", "~"),
                         (r"\(ga", "`"), (r"\&", ""), (r"\e", "\\")):
        text = text.replace(escape, char)
    return text


def roff_code(text):
    """C text as the lines of an .EX block."""
    text = text.expandtabs(8).strip("\n").replace("\\", "\\e")
    for char, escape in (("-", r"\-"), ("'", r"\(aq"), ("^", r"\(ha"), ("~", r"\(ti"),
                         ("`", r"\(ga")):
        text = text.replace(char, escape)
    return [r"\&" + line if line.startswith(".") else line for line in text.split("\n")]


def fold(text):
    """A declaration on one line, broken after commas where it is too wide."""
    text = " ".join(text.split())
    parts = re.split(r"(?<=,) ", text)
    indent, lines = indentation(text.rindex("(") + 1, parts), parts[:1]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 1 <= CODE_WIDTH:
            lines[-1] += " " + part
        else:
            lines.append(indent + part)
    return "\n".join(lines)


def indentation(column, parts):
    """What comes before a broken line: up to the parenthesis, if all arguments fit behind it."""
    fits = column + max(map(len, parts[1:]), default=0) <= CODE_WIDTH
    return " " * (column if fits else 8)


def roff_prototype(prototype):
    """A prototype as .BI lines: types bold, arguments slanted, broken where it gets too wide."""
    head, args = re.match(r"(.*?\()(.*)\);", prototype).groups()
    lines, pieces, width = [], [head], len(head)
    indent = indentation(len(head), [arg + ");" for arg in args.split(", ")])
    for i, arg in enumerate(args.split(", ")):
        if i and width + len(arg) + 4 > CODE_WIDTH:
            pieces[-1] += ","
            lines.append(pieces)
            pieces, width = [indent], len(indent)
        elif i:
            pieces[-1] += ", "
        kind, name = re.match(r"(.*?)(\w*)$", arg).groups() if arg != "void" else (arg, "")
        pieces[-1] += kind
        pieces += [name, ""] if name else []
        width += len(arg) + 2
    pieces[-1] += ");"
    lines.append(pieces)
    return [".BI " + " ".join(f'"{p}"' if " " in p else p for p in line) for line in lines]


class Page:
    """One page: its lines, names, and sections."""

    def __init__(self, path):
        self.path = path
        self.lines = path.read_text(encoding="utf-8").split("\n")
        title = next(line for line in self.lines if line.startswith((".TH ", ".Dt ")))
        self.title = shlex.split(title)[1:]
        self.sections = {}
        section = []
        for line in self.lines:
            if line.startswith((".SH ", ".Sh ")):
                section = self.sections.setdefault(line[4:].strip('"'), [])
            else:
                section.append(line)
        name = plain(" ".join(self.section("NAME"))).replace(".Nm ", "")
        self.names = re.split(r",\s*", re.split(r" - | \.Nd ", name)[0].strip())

    def prose(self):
        """Its text without the blocks of code."""
        text = re.sub(r"^\.EX$.*?^\.EE$", "", "\n".join(self.lines), flags=re.DOTALL | re.MULTILINE)
        return plain(re.sub(r'^\.\\".*$', "", text, flags=re.MULTILINE))

    def section(self, name):
        return self.sections.get(name, [])

    def text(self):
        """All of it but comments and the title, without escapes."""
        return plain("\n".join(line for line in self.lines
                               if not line.startswith(('.\\"', ".TH ", ".Dt "))))

    def includes(self):
        return re.findall(r"#include <hgm/(\w+\.h)>", "\n".join(self.section("SYNOPSIS")))

    def prototypes(self):
        """Name -> prototype, as SYNOPSIS has them."""
        words = ""
        for line in self.section("SYNOPSIS"):
            macro = re.match(r"\.BI? (.*)", line)
            if macro and "#include" not in line:
                words += "".join(shlex.split(macro[1])) + " "
        found = re.findall(r"[^;]*\b(hgm_\w+)\([^;]*;", words)
        return dict(zip(found, [" ".join(p.split()) + ";" for p in words.split(";")]))

    def thread_words(self):
        """Name -> its words in the table of ATTRIBUTES."""
        rows = re.findall(r"^(hgm_\w+)\(\)\t(.*)$", "\n".join(self.section("ATTRIBUTES")),
                          re.MULTILINE)
        return {name: words.strip() for name, words in rows if words.strip()}

    def errors(self):
        """Code -> whether a cause follows its tag."""
        found, codes, is_tag = {}, [], False
        for line in self.section("ERRORS"):
            if line == ".TP":
                codes, is_tag = [], True
            elif is_tag:
                codes, is_tag = re.findall(r"-(E[A-Z0-9]+)\b", plain(line)), False
                found.update({code: found.get(code, False) for code in codes})
            elif not line.startswith(".\\\"") and re.search(r"\w{2}", line):
                found.update({code: True for code in codes})
                codes = codes if line.startswith(".") else []
        return found

    def references(self):
        """(name, section) of every page that is referred to."""
        text = self.prose()
        return set(re.findall(r"^\.(?:BR|Xr) \"?([\w.-]+)\"? \"?\(?([1-8]\w*)\)?", text,
                              re.MULTILINE)) | \
            set(re.findall(r"\b([\w-]+)\(([1-8])\)", text))

    def code(self):
        """(origin kind, origin, item, lines) of each .EX block; kind None if it has no origin."""
        origin, block = None, None
        for line in self.lines:
            if line == ".EX":
                block = []
            elif line == ".EE" and block is not None:
                yield origin or (None, "", ""), block
                origin, block = None, None
            elif block is not None:
                block.append(line)
            elif ORIGIN.match(line):
                origin = ORIGIN.match(line).groups()


def made_of(origin, root, headers):
    """The lines that the block of that origin must have, or None."""
    kind, place, item = origin
    if kind == "from":
        found = headers.types.get(item)
        if not found or place[4:] not in headers.text:
            return None
        return roff_code(fold(found.text) if found.text.startswith("typedef") else found.text)
    path = root / place
    if kind != "file" or not path.is_file():
        return None
    return roff_code(re.sub(r"^/\* SPDX.*\*/\n", "", path.read_text(encoding="utf-8")))
