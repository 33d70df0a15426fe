/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "snapshotting.h"

#include <stdlib.h>

static void *writer(void *arg)
{
	struct writer *w = arg;
	struct writers *c = w->writers;
	uint64_t seed = w->slot + 1, value = 1;

	while (!atomic_load(&c->stop)) {
		uint64_t page = mix(seed++) % c->pages;

		if (atomic_load(&c->pause)) {
			atomic_fetch_add(&c->paused, 1);
			while (atomic_load(&c->pause))
				nap_us(50);
			atomic_fetch_sub(&c->paused, 1);
		}
		__atomic_store_n((uint64_t *)(c->addr + page * PAGE) + w->slot, value,
				 __ATOMIC_RELAXED);
		w->last[page] = value++;
		atomic_fetch_add_explicit(&w->writes, 1, memory_order_relaxed);
	}
	return NULL;
}

void writers_start(struct writers *c, const struct contents *contents, void *addr, uint64_t pages)
{
	memset(c, 0, sizeof(*c));
	c->contents = contents;
	c->addr = addr;
	c->pages = pages;
	for (unsigned int i = 0; i < WRITERS; i++) {
		c->writer[i] = (struct writer){ .writers = c, .slot = i };
		c->writer[i].last = calloc(pages, sizeof(uint64_t));
		assert_non_null(c->writer[i].last);
	}
	for (unsigned int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&c->writer[i].thread, NULL, writer, &c->writer[i]),
				 0);
}

void writers_pause(struct writers *c)
{
	atomic_store(&c->pause, true);
	while (atomic_load(&c->paused) < WRITERS)
		nap_us(20);
}

void writers_resume(struct writers *c)
{
	atomic_store(&c->pause, false);
	while (atomic_load(&c->paused))
		nap_us(20);
}

void writers_stop(struct writers *c)
{
	atomic_store(&c->stop, true);
	atomic_store(&c->pause, false);
	for (unsigned int i = 0; i < WRITERS; i++)
		pthread_join(c->writer[i].thread, NULL);
}

void writers_end(struct writers *c)
{
	if (!atomic_load(&c->stop))
		writers_stop(c);
	for (unsigned int i = 0; i < WRITERS; i++)
		free(c->writer[i].last);
}

uint64_t writers_writes(const struct writers *c)
{
	uint64_t writes = 0;

	for (unsigned int i = 0; i < WRITERS; i++)
		writes += atomic_load(&c->writer[i].writes);
	return writes;
}

struct goal {
	const struct writer *writer;
	uint64_t writes;
};

static bool is_reached(void *arg)
{
	const struct goal *goal = arg;

	return atomic_load(&goal->writer->writes) >= goal->writes;
}

void writers_wait_for(struct writers *c, uint64_t writes, unsigned int ms)
{
	struct goal goal[WRITERS];

	for (unsigned int i = 0; i < WRITERS; i++) {
		goal[i].writer = &c->writer[i];
		goal[i].writes = atomic_load(&c->writer[i].writes) + writes;
	}
	for (unsigned int i = 0; i < WRITERS; i++)
		if (!eventually(is_reached, &goal[i], ms))
			fail_msg("writer %u does not go on: %llu writes are missing of %llu", i,
				 (unsigned long long)(goal[i].writes -
						      atomic_load(&c->writer[i].writes)),
				 (unsigned long long)writes);
}

void writers_expect(const struct writers *c, char *to)
{
	contents_write(c->contents, c->first_page, c->pages, to);
	for (uint64_t p = 0; p < c->pages; p++)
		for (unsigned int i = 0; i < WRITERS; i++)
			if (c->writer[i].last[p])
				((uint64_t *)(to + p * PAGE))[i] = c->writer[i].last[p];
}

int64_t sink_write(void *user, const void *buf, uint64_t length, uint64_t offset)
{
	struct sink *s = user;

	atomic_fetch_add(&s->calls, 1);
	while (atomic_load(&s->hold))
		nap_us(100);
	if (s->returns_nothing && s->taken >= s->fail_at)
		return 0;
	if (s->fail && s->taken >= s->fail_at)
		return s->fail;
	if (s->most && length > s->most)
		length = s->most;
	assert_true(offset + length <= s->length);
	memcpy(s->got + offset, buf, length);
	s->ascending &= offset >= s->last_end;
	s->last_end = offset + length;
	s->taken += length;
	if (s->nap_us)
		nap_us(s->nap_us);
	return (int64_t)length;
}

void sink_clear(struct sink *s, uint64_t length)
{
	char *got = s->got ? s->got : malloc(length);

	assert_non_null(got);
	*s = (struct sink){ .got = got, .length = length, .ascending = true };
	memset(got, 0, length);
}

struct hgm_snapshot_progress snapshot_progress(struct hgm_snapshot *s)
{
	struct hgm_snapshot_progress p = { .size = sizeof(p) };

	assert_ok(hgm_snapshot_get_progress(s, &p));
	return p;
}

void assert_same(const char *got, const char *want, uint64_t pages, const char *what)
{
	for (uint64_t p = 0; p < pages; p++) {
		const uint64_t *g = (const uint64_t *)(got + p * PAGE);
		const uint64_t *w = (const uint64_t *)(want + p * PAGE);

		for (unsigned int i = 0; i < 512; i++)
			if (g[i] != w[i])
				fail_msg("%s: page %llu of %llu, word %u: %llx instead of %llx",
					 what, (unsigned long long)p, (unsigned long long)pages, i,
					 (unsigned long long)g[i], (unsigned long long)w[i]);
	}
}

struct hgm_snapshot *snapshot_of(struct hgm *h, const struct hgm_snapshot_opts *opts)
{
	struct hgm_snapshot_opts o = *opts;
	struct hgm_snapshot *s;

	o.size = sizeof(o);
	assert_ok(hgm_snapshot_create(&s, h, &o));
	return s;
}

void writers_begin(struct writers *c, struct hgm_snapshot *s, char *want)
{
	writers_pause(c);
	writers_expect(c, want);
	assert_ok(hgm_snapshot_begin(s));
	writers_resume(c);
}

static void *write_once(void *arg)
{
	struct poker *p = arg;

	*p->at += 1;
	atomic_store(&p->done, true);
	return NULL;
}

void poker_start(struct poker *p, void *at)
{
	*p = (struct poker){ .at = at };
	pthread_create(&p->thread, NULL, write_once, p);
}

bool poker_done(void *poker)
{
	return atomic_load(&((struct poker *)poker)->done);
}
