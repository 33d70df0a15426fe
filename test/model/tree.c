/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static unsigned int index_at(enum level level, uint64_t offset)
{
	return (unsigned int)(offset >> (3 + 9 * level)) & 511;
}

static bool bit(const uint64_t *bits, unsigned int i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static void set_bit(uint64_t *bits, unsigned int i, bool value)
{
	bits[i / 64] = (bits[i / 64] & ~(UINT64_C(1) << i % 64)) | (uint64_t)value << i % 64;
}

static void *zeroed(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p)
		abort();
	return p;
}

/* Replace a hole or a leaf by a table. Each piece inherits its state. */
static void make_table(struct entry *e, enum level level)
{
	bool leaf = e->kind == KIND_LEAF;

	if (level == LEVEL_PMD) {
		struct ptes *ptes = zeroed(1, sizeof(*ptes));

		memset(ptes->mapped, leaf ? 0xff : 0, sizeof(ptes->mapped));
		memset(ptes->wp, e->wp ? 0xff : 0, sizeof(ptes->wp));
		memset(ptes->poison, e->poison ? 0xff : 0, sizeof(ptes->poison));
		e->ptes = ptes;
	} else {
		struct entry *sub = zeroed(512, sizeof(*sub));

		for (unsigned int i = 0; i < 512; i++)
			sub[i] =
				(struct entry){ .kind = e->kind, .wp = e->wp, .poison = e->poison };
		e->sub = sub;
	}
	e->kind = KIND_TABLE;
	e->wp = e->poison = false;
}

struct piece tree_at(const struct entry *e, enum level level, uint64_t offset)
{
	struct piece p = { .level = level };
	unsigned int i;

	while (e->kind == KIND_TABLE && p.level > LEVEL_PMD) {
		p.level--;
		e = &e->sub[index_at(p.level + 1, offset)];
	}
	if (e->kind == KIND_TABLE) {
		i = index_at(LEVEL_PMD, offset);
		p.level = LEVEL_PTE;
		p.mapped = bit(e->ptes->mapped, i);
		p.wp = bit(e->ptes->wp, i);
		p.poison = bit(e->ptes->poison, i);
	} else {
		p.mapped = e->kind == KIND_LEAF;
		p.wp = e->wp;
		p.poison = e->poison;
	}
	p.size = level_bytes(p.level);
	p.start = offset & ~(p.size - 1);
	return p;
}

int tree_walk(struct entry *e, enum level level, uint64_t offset, enum level want, enum kind *kind)
{
	while (level > want) {
		if (e->kind == KIND_LEAF)
			return -EEXIST;
		if (e->kind == KIND_HOLE)
			make_table(e, level);
		if (level == LEVEL_PMD) {
			*kind = bit(e->ptes->mapped, index_at(level, offset)) ? KIND_LEAF
									      : KIND_HOLE;
			return 0;
		}
		e = &e->sub[index_at(level, offset)];
		level--;
	}
	*kind = e->kind;
	return 0;
}

void tree_map(struct entry *e, enum level level, uint64_t offset, enum level want, bool wp)
{
	while (level > want && level > LEVEL_PMD) {
		e = &e->sub[index_at(level, offset)];
		level--;
	}
	if (want == LEVEL_PTE) {
		unsigned int i = index_at(LEVEL_PMD, offset);

		set_bit(e->ptes->mapped, i, true);
		set_bit(e->ptes->wp, i, wp);
		set_bit(e->ptes->poison, i, false);
		return;
	}
	e->kind = KIND_LEAF;
	e->wp = wp;
	e->poison = false;
}

void tree_collapse(struct entry *e, enum level level, uint64_t offset, enum level want, bool leaf)
{
	while (level > want) {
		e = &e->sub[index_at(level, offset)];
		level--;
	}
	tree_free(e, level);
	if (leaf)
		e->kind = KIND_LEAF;
}

void tree_unmap(struct entry *e, enum level level)
{
	if (e->kind == KIND_TABLE && level == LEVEL_PMD) {
		memset(e->ptes->mapped, 0, sizeof(e->ptes->mapped));
		memset(e->ptes->poison, 0, sizeof(e->ptes->poison));
	} else if (e->kind == KIND_TABLE) {
		for (unsigned int i = 0; i < 512; i++)
			tree_unmap(&e->sub[i], level - 1);
	} else {
		e->kind = KIND_HOLE;
		e->poison = false;
	}
}

void tree_free(struct entry *e, enum level level)
{
	if (e->kind == KIND_TABLE && level == LEVEL_PMD) {
		free(e->ptes);
	} else if (e->kind == KIND_TABLE) {
		for (unsigned int i = 0; i < 512; i++)
			tree_free(&e->sub[i], level - 1);
		free(e->sub);
	}
	*e = (struct entry){ 0 };
}

void tree_protect(struct entry *e, enum level level, uint64_t from, uint64_t to, bool wp)
{
	uint64_t step = level_bytes(level - 1);

	if (e->kind != KIND_TABLE && from == 0 && to == level_bytes(level)) {
		e->wp = wp;
		return;
	}
	if (e->kind != KIND_TABLE)
		make_table(e, level);
	for (uint64_t at = from; at < to; at = (at / step + 1) * step) {
		unsigned int i = (unsigned int)(at / step);

		if (level == LEVEL_PMD)
			set_bit(e->ptes->wp, i, wp);
		else
			tree_protect(&e->sub[i], level - 1, at - i * step,
				     to - i * step < step ? to - i * step : step, wp);
	}
}

void tree_poison(struct entry *e)
{
	e->poison = true;
}

void tree_hwpoison(struct entry *e, enum level level)
{
	if (e->kind == KIND_TABLE && level == LEVEL_PMD) {
		for (unsigned int i = 0; i < 8; i++)
			e->ptes->poison[i] |= e->ptes->mapped[i];
	} else if (e->kind == KIND_TABLE) {
		for (unsigned int i = 0; i < 512; i++)
			tree_hwpoison(&e->sub[i], level - 1);
	} else {
		e->poison |= e->kind == KIND_LEAF;
	}
}

static void each_pte(const struct ptes *t, uint64_t base, bool mapped,
		     void (*fn)(void *arg, const struct piece *p), void *arg)
{
	struct piece run = { .level = LEVEL_PTE, .mapped = mapped };

	for (unsigned int i = 0; i < 512; i++) {
		bool wp = bit(t->wp, i);
		bool in = bit(t->mapped, i) == mapped;

		if (run.size && (!in || wp != run.wp)) {
			fn(arg, &run);
			run.size = 0;
		}
		if (in && !run.size) {
			run.start = base + i * KIB4;
			run.wp = wp;
			run.poison = bit(t->poison, i);
		}
		if (in)
			run.size += KIB4;
	}
	if (run.size)
		fn(arg, &run);
}

void tree_each(const struct entry *e, enum level level, uint64_t base, bool mapped,
	       void (*fn)(void *arg, const struct piece *p), void *arg)
{
	struct piece p = { .start = base,
			   .size = level_bytes(level),
			   .level = level,
			   .mapped = mapped,
			   .wp = e->wp,
			   .poison = e->poison };

	if (e->kind != KIND_TABLE) {
		if (mapped == (e->kind == KIND_LEAF))
			fn(arg, &p);
	} else if (level == LEVEL_PMD) {
		each_pte(e->ptes, base, mapped, fn, arg);
	} else {
		for (unsigned int i = 0; i < 512; i++)
			tree_each(&e->sub[i], level - 1, base + i * level_bytes(level - 1), mapped,
				  fn, arg);
	}
}

void tree_count(const struct entry *e, enum level level, struct leaf_count *count)
{
	if (e->kind == KIND_LEAF) {
		count->bytes[level] += level_bytes(level);
	} else if (e->kind == KIND_TABLE && level == LEVEL_PMD) {
		count->tables_4k++;
		for (unsigned int i = 0; i < 8; i++)
			count->bytes[LEVEL_PTE] +=
				KIB4 * (unsigned int)__builtin_popcountll(e->ptes->mapped[i]);
	} else if (e->kind == KIND_TABLE) {
		for (unsigned int i = 0; i < 512; i++)
			tree_count(&e->sub[i], level - 1, count);
	}
}

bool tree_any_mapped(const struct entry *e, enum level level)
{
	struct leaf_count count = { 0 };

	tree_count(e, level, &count);
	return count.bytes[0] || count.bytes[1] || count.bytes[2];
}
