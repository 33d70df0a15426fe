/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Huge page pools. Pages are promised to a shared mapping when it is created. A page is taken when
 * it is first needed, and given back when it leaves the page cache. As in the kernel, a promised
 * page counts as free until it is taken.
 */
#include "state.h"

#include <errno.h>

struct pool *pool_of(uint64_t bytes)
{
	for (unsigned int i = 0; i < 2; i++)
		if (model.pool[i].bytes == bytes)
			return &model.pool[i];
	return NULL;
}

static uint64_t to_spare(const struct pool *p)
{
	uint64_t gone = p->taken + p->promised + p->lost;

	return p->total > gone ? p->total - gone : 0;
}

uint64_t pool_free(const struct pool *p)
{
	uint64_t gone = p->taken + p->lost;

	return p->total > gone ? p->total - gone : 0;
}

int pool_promise(struct file *f, uint64_t first, uint64_t blocks)
{
	uint64_t need = 0;

	for (uint64_t b = first; b < first + blocks; b++)
		need += !(f->state[b] & (BLOCK_CACHED | BLOCK_PROMISED));
	if (need > to_spare(f->pool))
		return -ENOMEM;
	for (uint64_t b = first; b < first + blocks; b++)
		if (!(f->state[b] & (BLOCK_CACHED | BLOCK_PROMISED)))
			f->state[b] |= BLOCK_PROMISED;
	f->pool->promised += need;
	return 0;
}

int pool_take(struct file *f, uint64_t block)
{
	uint8_t *state = &f->state[block];

	if (*state & BLOCK_CACHED)
		return 0;
	if (*state & BLOCK_PROMISED)
		f->pool->promised--;
	else if (!to_spare(f->pool))
		return -ENOMEM;
	f->pool->taken++;
	*state = (uint8_t)((*state & ~BLOCK_PROMISED) | BLOCK_CACHED);
	return 0;
}

void pool_give_back(struct file *f, uint64_t block)
{
	if (f->state[block] & BLOCK_CACHED)
		f->pool->taken--;
	if (f->state[block] & BLOCK_POISONED)
		f->pool->lost++;
	if (f->state[block] & BLOCK_PROMISED)
		f->pool->promised--;
	f->state[block] = 0;
}

struct model_pool model_pool(uint64_t huge_page_bytes)
{
	struct model_pool out = { 0 };
	struct pool *p;

	model_lock();
	p = pool_of(huge_page_bytes);
	if (p) {
		fd_reconcile();
		file_look_all();
		out.total = p->total;
		out.free = pool_free(p);
		out.promised = p->promised;
	}
	model_unlock();
	return out;
}
