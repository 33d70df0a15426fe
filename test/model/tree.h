/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page table of one huge page: leaves of its size and of the smaller sizes, holes, tables
 * (which stay when they are empty), protection, and markers in holes. This file makes no system
 * calls.
 */
#ifndef HGM_TEST_MODEL_TREE_H
#define HGM_TEST_MODEL_TREE_H

#include <stdbool.h>
#include <stdint.h>

#define KIB4 UINT64_C(0x1000)
#define MIB2 UINT64_C(0x200000)
#define GIB1 UINT64_C(0x40000000)

enum level {
	LEVEL_PTE, /* 4 KiB */
	LEVEL_PMD, /* 2 MiB */
	LEVEL_PUD, /* 1 GiB */
};

enum kind {
	KIND_HOLE,
	KIND_LEAF,
	KIND_TABLE,
};

struct ptes {
	uint64_t mapped[8];
	uint64_t wp[8]; /* if mapped: protected; else a marker */
	uint64_t poison[8];
};

/* A 2 MiB or 1 GiB entry. */
struct entry {
	uint8_t kind;
	bool wp; /* leaf: protected; hole: a marker; table: unused */
	bool poison;
	union {
		struct entry *sub; /* the 512 entries of a 1 GiB entry */
		struct ptes *ptes; /* of a 2 MiB entry */
	};
};

/* One leaf or hole. */
struct piece {
	uint64_t start; /* offset in the huge page */
	uint64_t size;
	enum level level;
	bool mapped;
	bool wp;
	bool poison;
};

static inline uint64_t level_bytes(enum level level)
{
	return KIB4 << 9 * level;
}

struct piece tree_at(const struct entry *root, enum level level, uint64_t offset);

/*
 * Create the tables down to @want, and store what is there in @kind. -EEXIST: a larger leaf exists.
 */
int tree_walk(struct entry *root, enum level level, uint64_t offset, enum level want,
	      enum kind *kind);

/* Map a leaf of size @want. The tables above it must exist. */
void tree_map(struct entry *root, enum level level, uint64_t offset, enum level want, bool wp);

/* Replace a table by one entry, a leaf or a hole, without protection. */
void tree_collapse(struct entry *root, enum level level, uint64_t offset, enum level want,
		   bool leaf);

void tree_unmap(struct entry *e, enum level level); /* tables and protection stay */
void tree_free(struct entry *e, enum level level);  /* all of it */
void tree_protect(struct entry *e, enum level level, uint64_t from, uint64_t to, bool wp);

/* Replace a hole by a poison marker. */
void tree_poison(struct entry *e);

/* Mark the leaves as entries of a bad huge page. They still count as leaves, as in smaps. */
void tree_hwpoison(struct entry *e, enum level level);

/* Visit all leaves (or all holes) in order. Adjacent 4 KiB pieces are merged into one. */
void tree_each(const struct entry *e, enum level level, uint64_t base, bool mapped,
	       void (*fn)(void *arg, const struct piece *p), void *arg);

struct leaf_count {
	uint64_t bytes[3]; /* indexed by level */
	uint64_t tables_4k;
};

void tree_count(const struct entry *e, enum level level, struct leaf_count *count);
bool tree_any_mapped(const struct entry *e, enum level level);

#endif
