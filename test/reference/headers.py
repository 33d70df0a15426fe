# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the installed headers say: functions with the words of their comments, types, names."""

import re


class Function:
    """One public function: its prototype, and the comment before it."""

    def __init__(self, header, prototype, comment):
        self.header = header
        self.prototype = " ".join(prototype.split())
        self.name = re.search(r"\b(hgm_\w+)\(", self.prototype)[1]
        self.comment = comment

    def clause(self, word):
        """The comment from "WORD:" on, up to the next such word."""
        found = re.search(
            rf"\b{word}:(.*?)(?=\b(?:Errors|Return|Calling thread|Since):|$)", self.comment)
        return found[1].strip() if found else None

    def thread_word(self):
        """The word of ATTRIBUTES that the comment's "Calling thread:" comes to, or None."""
        clause = re.match(r"any(?: but ([^.;:]+))?[.,;]", self.clause("Calling thread") or "")
        if not clause:
            return None
        word = "MT-Safe"
        for who in re.split(r",| and ", clause[1] or ""):
            who = who.strip()
            if who == "the library's own":
                word += " not:hgm"
            elif re.fullmatch(r"hgm_\w+_fn", who):
                word += f" not:{who}"
            elif who:
                return None
        ends = re.search(r"_(?:destroy|free|close|stop)\((?:struct \w+ \*)(\w+)\)", self.prototype)
        return word + (f" end:{ends[1]}" if ends else "")

    def errors(self, structs):
        """The codes that the comment names, also by pointing at a struct's comment."""
        return set(re.findall(r"-(E[A-Z0-9]+)\b", self.error_words(structs)))

    def passes_on(self, structs):
        """Whether it also returns what others say: the kernel, a sink."""
        return bool(re.search(r"\bothers as\b|\bthose of\b|\bwhat the sink said\b",
                              self.error_words(structs)))

    def error_words(self, structs):
        """All that the comment says of errors."""
        text = (self.clause("Errors") or "") + (self.clause("Return") or "")
        for name in re.findall(r"see struct (\w+)", text):
            text += structs[name].comment if name in structs else ""
        return text

    def needs_hgm(self):
        """Whether only kernels that nobody has released can do it."""
        return "HGM series" in (self.clause("Since") or "")

    def returns(self):
        """The type of its result."""
        return self.prototype.partition(self.name + "(")[0].strip()

    def kernels(self):
        """The kernel versions that it is said to need."""
        return set(re.findall(r"\b\d\.\d+\b", (self.clause("Since") or "").partition(";")[2]))


class Type:
    """A public struct, enum or function type, with its comment."""

    def __init__(self, text, comment):
        self.text = text
        self.comment = comment
        self.fields = []
        body = re.search(r"^struct \w+ \{(.*)\}", text, re.DOTALL)
        if body:
            for line in body[1].split(";"):
                field = re.search(r"(\w+)(?:\[\w+\])?\)?(?:\(.*\))?\s*$", line, re.DOTALL)
                if field:
                    self.fields.append(field[1])


# Headers of libraries beside libhgm, each with the map of its library.
COMPANIONS = {"nbd.h": "nbd/hgm-nbd.map"}


class Headers:
    """All headers of libhgm that are installed, as include/hgm/meson.build lists them, and on
    request those of the libraries that are built on it."""

    def __init__(self, root, companions=False):
        folder = root / "include" / "hgm"
        listed = (folder / "meson.build").read_text(encoding="utf-8")
        self.problems = []
        self.functions = {}
        self.types = {}
        self.text = {}
        names = re.findall(r"'(\w+\.h)'", listed) + list(COMPANIONS if companions else ())
        for name in names:
            self.text[name] = (folder / name).read_text(encoding="utf-8")
            self.read(name, self.text[name])
        every = "\n".join(self.text.values())
        self.tokens = set(re.findall(r"\b(?:hgm|HGM)_\w+", every))
        self.constants = set(re.findall(r"^#define (HGM_\w+)\b[^\n(]", every, re.MULTILINE))
        self.constants |= set(re.findall(r"^\t(HGM_\w+)(?= =|,)", every, re.MULTILINE))

    def read(self, name, text):
        """Take one header apart: a declaration belongs to the comment right before it."""
        if re.search(r"u?rcu", text, re.IGNORECASE):
            self.problems.append(f"{name}: speaks of RCU, which is a private detail")
        comment = ""
        for part in re.split(r"(/\*\*\n.*?\*/\n)", text, flags=re.DOTALL):
            if part.startswith("/**\n"):
                comment = " ".join(re.sub(r"^ ?\*+/?|^/\*+", "", part, flags=re.MULTILINE).split())
                continue
            code = re.sub(r"/\*.*?\*/", "", part, flags=re.DOTALL)
            code = re.sub(r"^#.*?(?<!\\)$", "", code, flags=re.DOTALL | re.MULTILINE)
            code = re.sub(r"\bHGM_(BEGIN|END)_DECLS\b", "", code)
            for decl in re.findall(r"[^;{}]+(?:\{.*?\})?;", code, flags=re.DOTALL):
                self.declare(name, decl.strip(), comment)
                comment = ""

    def declare(self, header, decl, comment):
        """File one declaration under what it declares."""
        named = re.match(r"(?:struct|enum) (\w+) \{|typedef [^;]*\(\*(\w+)\)", decl)
        if named:
            text = re.sub(r"[ \t]*\n(\s*\n)*", "\n", decl)
            self.types[named[1] or named[2]] = Type(text, comment)
            return
        if not re.search(r"\bhgm_\w+\(", decl):
            return
        fn = Function(header, decl.replace("HGM_PUBLIC ", ""), comment)
        if "HGM_PUBLIC" not in decl:
            self.problems.append(f"{header}: {fn.name} is not marked HGM_PUBLIC")
            return
        self.functions[fn.name] = fn
        if not fn.clause("Calling thread"):
            self.problems.append(f"{header}: {fn.name}: its comment lacks 'Calling thread:'")
        elif not fn.thread_word():
            self.problems.append(f"{header}: {fn.name}: its 'Calling thread:' is none of the words "
                                 "that libhgm(7) explains")
        if not re.match(r"\d+\.\d+", fn.clause("Since") or ""):
            self.problems.append(f"{header}: {fn.name}: its comment lacks 'Since:' with a version")
