/* SPDX-License-Identifier: 0BSD */
/*
 * An imitated network link: see link.h
 *
 * All requests in flight are in one queue, in order of arrival. The link's thread takes the first
 * one, copies its contents while there is time, sleeps until shortly before the arrival, and spins
 * for the rest. A sleep alone would end some ten microseconds late. The thread learns how late.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "link.h"

#define SPIN_MIN_NS 5000
#define SPIN_MAX_NS 100000

struct flight {
	struct flight *next;
	struct hgm_io io;
	uint64_t due;
	bool cancelled;
};

struct link {
	const uint8_t *data;
	uint64_t length;
	double ns_per_byte;
	uint64_t rtt;
	uint64_t each;
	int (*deliver)(const struct hgm_io *io, int64_t result);
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct flight *first;
	struct flight **last;
	struct flight *unused;
	struct flight *current; /* taken by the thread */
	uint64_t wire_free;	/* when the previous answer has passed */
	uint64_t spin;		/* how long before an arrival to stop sleeping */
	uint64_t in_flight;
	bool stop;
	struct link_stats stats;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t link_read(void *user, const struct hgm_io *io)
{
	struct link *l = user;
	uint64_t now = now_ns();
	struct flight *f;

	if (io->offset >= l->length)
		return -EINVAL;
	pthread_mutex_lock(&l->lock);
	f = l->unused;
	if (f)
		l->unused = f->next;
	else
		f = malloc(sizeof(*f));
	if (!f) {
		pthread_mutex_unlock(&l->lock);
		return -ENOMEM;
	}
	*f = (struct flight){ .io = *io };
	if (f->io.length > l->length - io->offset)
		f->io.length = l->length - io->offset;
	if (l->wire_free < now + l->rtt)
		l->wire_free = now + l->rtt;
	l->wire_free += l->each + f->io.length * l->ns_per_byte;
	f->due = l->wire_free;

	/* Otherwise the thread already waits for an earlier arrival. */
	if (!l->first && !l->current)
		pthread_cond_signal(&l->wake);
	*l->last = f;
	l->last = &f->next;
	if (++l->in_flight > l->stats.deepest)
		l->stats.deepest = l->in_flight;
	pthread_mutex_unlock(&l->lock);
	return HGM_IO_LATER;
}

static bool is_request(const struct flight *f, const struct hgm *engine, uint64_t id)
{
	return f->io.engine == engine && f->io.id == id;
}

/* Only mark the request and move it to the front. The link's thread answers it. */
void link_cancel(void *user, struct hgm *engine, uint64_t id)
{
	struct link *l = user;
	struct flight **at, *f;

	pthread_mutex_lock(&l->lock);
	if (l->current && is_request(l->current, engine, id))
		l->current->cancelled = true;
	for (at = &l->first; (f = *at); at = &f->next) {
		if (!is_request(f, engine, id))
			continue;
		*at = f->next;
		if (!f->next)
			l->last = at;
		f->cancelled = true;
		f->next = l->first;
		if (!l->first)
			l->last = &f->next;
		l->first = f;
		break;
	}
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/*
 * Sleep, then spin, until an arrival. Called with the lock held. Return: true if the arrival need
 * not be awaited.
 */
static bool wait_for(struct link *l, struct flight *f)
{
	struct timespec t;
	uint64_t until, woke;

	while (!f->cancelled && !l->stop && now_ns() + l->spin < f->due) {
		until = f->due - l->spin;
		t.tv_sec = until / 1000000000;
		t.tv_nsec = until % 1000000000;
		if (pthread_cond_timedwait(&l->wake, &l->lock, &t) != ETIMEDOUT)
			continue;
		/* Increase at once to what was needed, decrease slowly. */
		woke = now_ns() - until;
		l->spin -= l->spin / 64;
		if (l->spin < woke + SPIN_MIN_NS)
			l->spin = woke + SPIN_MIN_NS;
		if (l->spin > SPIN_MAX_NS)
			l->spin = SPIN_MAX_NS;
	}
	if (f->cancelled || l->stop)
		return true;
	pthread_mutex_unlock(&l->lock);
	while (now_ns() < f->due)
		;
	pthread_mutex_lock(&l->lock);
	return f->cancelled;
}

static void account(struct link *l, const struct flight *f, bool given_up)
{
	uint64_t now = now_ns(), late = now > f->due ? now - f->due : 0;

	l->stats.requests++;
	if (given_up) {
		l->stats.cancelled++;
		return;
	}
	l->stats.bytes += f->io.length;
	l->stats.late_ns += late;
	if (late > l->stats.late_max_ns)
		l->stats.late_max_ns = late;
}

static void *link_main(void *arg)
{
	struct link *l = arg;
	struct flight *f;
	bool given_up;

	/* By default the kernel may end each sleep 50 microseconds late. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	pthread_mutex_lock(&l->lock);
	for (;;) {
		while (!l->first && !l->stop)
			pthread_cond_wait(&l->wake, &l->lock);
		f = l->first;
		if (!f)
			break;
		l->first = f->next;
		if (!l->first)
			l->last = &l->first;
		l->current = f;
		if (!f->cancelled) {
			pthread_mutex_unlock(&l->lock);
			memcpy(f->io.buf, l->data + f->io.offset, f->io.length);
			pthread_mutex_lock(&l->lock);
		}
		given_up = wait_for(l, f);
		account(l, f, given_up);
		pthread_mutex_unlock(&l->lock);

		l->deliver(&f->io, given_up ? -ECANCELED : (int64_t)f->io.length);

		pthread_mutex_lock(&l->lock);
		l->current = NULL;
		l->in_flight--;
		f->next = l->unused;
		l->unused = f;
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int link_create(struct link **out, const void *data, uint64_t length, const struct link_opts *opts)
{
	pthread_condattr_t attr;
	struct link *l;
	int rc;

	if (!data || !length || !(opts->gbps > 0) || !(opts->rtt_us >= 0) || !(opts->each_us >= 0))
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->data = data;
	l->length = length;
	l->ns_per_byte = 8 / opts->gbps;
	l->rtt = opts->rtt_us * 1000;
	l->each = opts->each_us * 1000;
	l->deliver = opts->deliver ? opts->deliver : hgm_io_done;
	l->last = &l->first;
	l->spin = SPIN_MIN_NS;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	rc = pthread_create(&l->thread, NULL, link_main, l);
	if (rc) {
		pthread_cond_destroy(&l->wake);
		pthread_mutex_destroy(&l->lock);
		free(l);
		return -rc;
	}
	pthread_setname_np(l->thread, "link");
	*out = l;
	return 0;
}

void link_destroy(struct link *l)
{
	struct flight *f;

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	while ((f = l->unused)) {
		l->unused = f->next;
		free(f);
	}
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int link_source(struct hgm_source **out, struct link *l)
{
	struct hgm_source_fn_opts opts = {
		.size = sizeof(opts),
		.length = l->length,
		.cancel = link_cancel,
	};

	return hgm_source_fn(out, link_read, l, &opts);
}

void link_get_stats(struct link *l, struct link_stats *stats)
{
	pthread_mutex_lock(&l->lock);
	*stats = l->stats;
	pthread_mutex_unlock(&l->lock);
}
