/* SPDX-License-Identifier: 0BSD */
/*
 * An imitated network link: a source whose answers arrive as late as if they had come over a wire
 *
 * A request travels to the far end and its answer back: one round trip. Answers follow each other
 * on the wire at the link's bandwidth, in the order of the requests. So the last byte of an answer
 * arrives
 *
 *	max(time of the request + round trip, arrival of the answer before) + bytes / bandwidth
 *
 * A thread of the link's own delivers each answer at that time.
 */
#ifndef LINK_H
#define LINK_H

#include <stddef.h>
#include <stdint.h>

#include <hgm/source.h>

struct link;

/**
 * struct link_opts - what kind of link
 * @gbps:    bandwidth in 10^9 bits a second
 * @rtt_us:  round trip in microseconds
 * @deliver: what to call with each answer; NULL for hgm_io_done()
 */
struct link_opts {
	double gbps;
	double rtt_us;
	int (*deliver)(const struct hgm_io *io, int64_t result);
};

/**
 * struct link_stats - what a link has done
 * @requests:	 answered
 * @cancelled:	 of these, by -ECANCELED
 * @bytes:	 delivered
 * @deepest:	 the most requests in flight at a time
 * @late_ns:	 sum of how much later than computed answers were delivered
 * @late_max_ns: the largest of these
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
 * @data:   what lies at the far end; must stay readable
 * @length: its size in bytes
 * @opts:   what kind of link
 *
 * Return: 0, -EINVAL impossible options, -ENOMEM, -EAGAIN no thread to be had.
 */
int link_create(struct link **out, const void *data, uint64_t length, const struct link_opts *opts);

/*
 * Answers what is still in flight with -ECANCELED. Not before the engines that use it are
 * destroyed.
 */
void link_destroy(struct link *l);

/* The source. As hgm_source_fn(). */
int link_source(struct hgm_source **out, struct link *l);

/* What link_source() gives to hgm_source_fn(). */
int64_t link_read(void *user, const struct hgm_io *io);
void link_cancel(void *user, struct hgm *engine, uint64_t id);

void link_get_stats(struct link *l, struct link_stats *stats);

#endif /* LINK_H */
