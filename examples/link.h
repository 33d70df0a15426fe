/* SPDX-License-Identifier: 0BSD */
/*
 * An imitated network link: a source whose answers arrive as late as if they came over a wire
 *
 * A request travels to the far end and its answer travels back: one round trip. Answers follow each
 * other on the wire at the link's bandwidth, in the order of the requests. So the last byte of an
 * answer arrives at
 *
 *	max(time of the request + round trip, arrival of the previous answer) + each + bytes /
 *	bandwidth
 *
 * where "each" is the time that the far end needs for an answer before it can send it, usually 0.
 * The link has its own thread, which delivers each answer at that time.
 */
#ifndef LINK_H
#define LINK_H

#include <stddef.h>
#include <stdint.h>

#include <hgm/source.h>

struct link;

/**
 * struct link_opts - options of a link
 * @gbps:    bandwidth in 10^9 bits a second
 * @rtt_us:  round trip in microseconds
 * @each_us: time that the far end needs for each answer, one after another, in microseconds
 * @deliver: function to call with each answer; NULL for hgm_io_done()
 */
struct link_opts {
	double gbps;
	double rtt_us;
	double each_us;
	int (*deliver)(const struct hgm_io *io, int64_t result);
};

/**
 * struct link_stats - counters of a link
 * @requests:	 requests answered
 * @cancelled:	 requests answered with -ECANCELED
 * @bytes:	 bytes delivered
 * @deepest:	 the most requests in flight at a time
 * @late_ns:	 sum of the delays of answers after their computed time
 * @late_max_ns: the largest of these delays
 */
struct link_stats {
	uint64_t requests;
	uint64_t cancelled;
	uint64_t bytes;
	uint64_t deepest;
	uint64_t late_ns;
	uint64_t late_max_ns;
};

/**
 * link_create - make a link
 * @out:    the new link
 * @data:   the contents at the far end; must stay readable
 * @length: size of @data in bytes
 * @opts:   options of the link
 *
 * Return: 0; -EINVAL if the options are impossible; -ENOMEM; -EAGAIN if no thread can be created.
 */
int link_create(struct link **out, const void *data, uint64_t length, const struct link_opts *opts);

/*
 * Answer all requests that are still in flight with -ECANCELED. First destroy the engines that use
 * the link.
 */
void link_destroy(struct link *l);

/* Make a source from the link. Return: as hgm_source_fn(). */
int link_source(struct hgm_source **out, struct link *l);

/* The functions that link_source() passes to hgm_source_fn(). */
int64_t link_read(void *user, const struct hgm_io *io);
void link_cancel(void *user, struct hgm *engine, uint64_t id);

void link_get_stats(struct link *l, struct link_stats *stats);

#endif /* LINK_H */
