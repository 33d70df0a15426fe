# SPDX-License-Identifier: LGPL-2.1-or-later
"""What mutate.py does to copies of the tree, and what check.py must say of it"""

NEW = """
/**
 * hgm_new - new
 * Calling thread: any. Since: 0.1.
 */
HGM_PUBLIC int hgm_new(void);
"""
DECLS = "HGM_END_DECLS\n\n#endif"

# What is done: (file, text, its replacement)..., and what must be said. "exports" and "pc" are not
# files: the names that the library exports, a line each, and hgm.pc.
CASES = {
    "a function that is only declared": (
        [("include/hgm/engine.h", DECLS, NEW + DECLS)],
        "hgm_new: in the headers, not in lib/hgm.map"),
    "a symbol without a page": (
        [("include/hgm/engine.h", DECLS, NEW + DECLS),
         ("lib/hgm.map", "\thgm_wait;", "\thgm_wait;\n\thgm_new;"),
         ("exports", "hgm_wait\n", "hgm_wait\nhgm_new\n")],
        "hgm_new: in the headers, not in a page's NAME"),
    "a symbol that the map lacks": (
        [("lib/hgm.map", "\thgm_wait;\n", "")], "hgm_wait: in the headers, not in lib/hgm.map"),
    "a symbol that slipped out": (
        [("exports", "hgm_wait\n", "hgm_wait\nhgm_map_claim\n")],
        "hgm_map_claim: in the shared library, not in lib/hgm.map"),
    "a symbol of RCU": (
        [("exports", "hgm_wait\n", "hgm_wait\nurcu_bp_read_lock\n")],
        "urcu_bp_read_lock: exported, and of RCU"),
    "a header that speaks of RCU": (
        [("include/hgm/engine.h", "struct hgm;\n", "struct hgm; /* see liburcu */\n")],
        "engine.h: speaks of RCU"),
    "a declaration without its mark": (
        [("include/hgm/engine.h", "HGM_PUBLIC int hgm_start(", "int hgm_start(")],
        "engine.h: hgm_start is not marked HGM_PUBLIC"),
    "a page that names a dead function": (
        [("man/hgm_wait.3", "hgm_wait, hgm_event_fd", "hgm_wait, hgm_gone, hgm_event_fd")],
        "hgm_gone: in a page's NAME, not in the headers"),
    "prose about a dead function": (
        [("man/libhgm.7", ".BR hgm_start (3);", ".BR hgm_begin (3);")],
        r"libhgm.7: speaks of hgm_begin, which no header has"),
    "a function that dies": (
        [("include/hgm/engine.h", "int hgm_start(struct hgm *h)", "int hgm_run(struct hgm *h)")],
        "hgm_start: in a page's NAME, not in the headers"),
    "a function with two pages": (
        [("man/hgm_wait.3", "hgm_wait, hgm_event_fd", "hgm_wait, hgm_start, hgm_event_fd")],
        "hgm_start: in the NAME of more than one page"),
    "a prototype that changes": (
        [("include/hgm/engine.h", "hgm_start(struct hgm *h)", "hgm_start(struct hgm *h, int how)")],
        r"hgm_create.3: hgm_start: SYNOPSIS has 'int hgm_start\(struct hgm \*h\);', "
        r"hgm/engine.h has 'int hgm_start\(struct hgm \*h, int how\);'"),
    "a type of an argument that changes": (
        [("include/hgm/region.h", "uint64_t offset, uint64_t length);",
          "uint64_t offset, size_t length);")],
        "hgm_region_prefetch.3: hgm_region_prefetch: SYNOPSIS has"),
    "a SYNOPSIS without the header": (
        [("man/hgm_wait.3", ".B #include <hgm/engine.h>", ".B #include <hgm/region.h>")],
        "hgm_wait.3: hgm_wait: SYNOPSIS does not include <hgm/engine.h>"),
    "a thread safety that is missing": (
        [("man/hgm_wait.3", "hgm_event_fd()\tMT-Safe\n", "")],
        "hgm_wait.3: hgm_event_fd: ATTRIBUTES has no thread safety"),
    "a thread safety that is empty": (
        [("man/hgm_wait.3", "hgm_event_fd()\tMT-Safe\n", "hgm_event_fd()\t\n")],
        "hgm_wait.3: hgm_event_fd: ATTRIBUTES has no thread safety"),
    "a thread safety that is wrong": (
        [("man/hgm_wait.3", "MT-Safe not:hgm\n", "MT-Safe\n")],
        "hgm_wait.3: hgm_wait: ATTRIBUTES says 'MT-Safe', hgm/engine.h comes to 'MT-Safe not:hgm'"),
    "a header without a calling thread": (
        [("include/hgm/version.h", "Calling thread: any. ", "")],
        "version.h: hgm_version: its comment lacks 'Calling thread:'"),
    "a calling thread in free words": (
        [("include/hgm/version.h", "Calling thread: any. ", "Calling thread: most. ")],
        "version.h: hgm_version: its 'Calling thread:' is none of the words"),
    "a calling thread of no callback": (
        [("include/hgm/version.h", "Calling thread: any. ", "Calling thread: any but some. ")],
        "version.h: hgm_version: its 'Calling thread:' is none of the words"),
    "a header without a release": (
        [("include/hgm/version.h", " Since: 0.1.", "")],
        "version.h: hgm_version: its comment lacks 'Since:'"),
    "an error that no page has": (
        [("include/hgm/engine.h", "-EALREADY the", "-EPIPE gone; -EALREADY the")],
        "hgm_create.3: EPIPE: in the header's comments, not in ERRORS"),
    "an error that no header has": (
        [("man/hgm_wait.3", ".B \\-EIO", ".B \\-EPIPE")],
        "hgm_wait.3: EPIPE: in ERRORS, not in the header's comments"),
    "an error without a cause": (
        [("man/hgm_wait.3", ".RB ( hgm_wait ())\nThe time is over, and not all is complete.\n",
          "")],
        "hgm_wait.3: ERRORS gives no cause for ETIMEDOUT"),
    "a kernel that HISTORY lacks": (
        [("man/hgm_create.3", "They need Linux 4.11.", "They need Linux.")],
        "hgm_create.3: hgm_create: HISTORY lacks 4.11"),
    "a function that HISTORY lacks": (
        [("man/hgm_version.3", ".BR hgm_version ()\nappeared", "It\nappeared")],
        "hgm_version.3: hgm_version: not in HISTORY"),
    "a section that is missing": (
        [("man/hgm_version.3", ".SH ERRORS\nThis function does not fail.\n", "")],
        "hgm_version.3: its sections are"),
    "a page that does not exist": (
        [("man/hgm_version.3", ".BR libhgm (7)\n", ".BR libhgm_concepts (7)\n")],
        r"hgm_version.3: refers to libhgm_concepts\(7\), which does not exist"),
    "a foreign page that does not exist": (
        [("man/libhgm.7", ".BR ioctl (2)", ".BR iocntl (2)")],
        r"libhgm.7: refers to iocntl\(2\), which does not exist"),
    "a page that nothing leads to": (
        [("man/libhgm.7", ".BR hgm_version (3),\n", "")],
        r"hgm_version.3: libhgm\(7\) does not refer to it"),
    "a program that changed": (
        [("man/examples/hgm_version.c", "runs with", "works with")],
        "hgm_version.3: its copy of man/examples/hgm_version.c differs"),
    "a program that is not compiled": (
        [("man/examples/meson.build", "  'hgm_version',\n", "")],
        "hgm_version: in man/examples, not in its meson.build"),
    "code that is of no program": (
        [("man/hgm_version.3", '.\\" file man/examples/hgm_version.c\n', "")],
        "hgm_version.3: code that is of no header and no file"),
    "a struct that grew": (
        [("include/hgm/engine.h", "\tuint32_t workers;",
          "\tuint32_t workers;\n\tuint32_t helpers;")],
        "hgm_create.3: its copy of hgm_opts differs from hgm/engine.h"),
    "a field without words": (
        [("man/hgm_create.3", ".I spin_us\n", ".I spin\n")],
        "hgm_create.3: says nothing of spin_us of struct hgm_opts"),
    "a constant without words": (
        [("include/hgm/engine.h", "#define HGM_SPIN_NEVER",
          "#define HGM_SPIN_EVER 1\n#define HGM_SPIN_NEVER")],
        "HGM_SPIN_EVER: no page speaks of it"),
    "a page that is not installed": (
        [("man/meson.build", "['hgm_start', 'hgm_destroy']", "['hgm_start']")],
        "man/meson.build installs hgm_create.3 as hgm_create, hgm_start; its NAME says"),
    "a capability without words": (
        [("lib/caps/caps.c", '{ "hgm.sysfs", hgm_probe',
          '{ "hgm.new", hgm_probe_new },\n\t{ "hgm.sysfs", hgm_probe')],
        "hgm.new: in lib/caps/caps.c, not in libhgm_caps.7"),
    "a README whose program is another": (
        [("README.md", "check(hgm_start(h));", "check(hgm_start(h, 0));")],
        "README.md: its program differs from examples/restore.c"),
    "a README that leads nowhere": (
        [("README.md", "`hgm_dirty_start(3)`", "`hgm_dirty_begin(3)`")],
        r"README.md: refers to hgm_dirty_begin\(3\), which does not exist"),
    "a map without a node of this version": (
        [("lib/hgm.map", "HGM_0.1 {", "HGM_0.0 {")], "the newest node of hgm.map is 0.0"),
    "a header of another version": (
        [("include/hgm/version.h", "HGM_VERSION_MINOR 1", "HGM_VERSION_MINOR 2")],
        "version.h says 0.2.0"),
    "a page of another version": (
        [("man/hgm_wait.3", '"libhgm 0.1"', '"libhgm 0.0"'),
         ("man/hgm_wait.3", "libhgm 0.1", "libhgm 0.0")],
        "hgm_wait.3: is not of libhgm 0.1"),
    "a flag that hgm.pc gives away": (
        [("pc", "Cflags: ", "Cflags: -DURCU_INLINE ")], "hgm.pc: Cflags has -DURCU_INLINE"),
    "a library that hgm.pc gives away": (
        [("pc", "-lhgm", "-lhgm -lurcu-bp")], "hgm.pc: Libs has -lurcu-bp"),
}
