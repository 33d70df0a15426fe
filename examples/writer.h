/* SPDX-License-Identifier: 0BSD */
/*
 * The guest that writes (writer_guest.S): its schedules, the same work done by a thread where there
 * is no KVM, and what its memory must look like after so many writes.
 *
 * Which page a CPU's n-th write goes to is known beforehand: every page belongs to one CPU, and
 * half of a CPU's writes go to a sixteenth of its pages, the other half to all others by turns, in
 * a shuffled order. So the sequence numbers that the CPUs have reached tell the last write of each
 * page, and with it each byte of memory.
 */
#ifndef WRITER_H
#define WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "writer_guest.h"

/**
 * struct writer_box - what a CPU is told and what it tells
 * @first:	 guest address of its schedule: a guest address of a page for each write
 * @end:	 behind it; the schedule is gone round
 * @log:	 guest address of its log: what slow writes took, in ticks
 * @stop:	 end after the record that is being written
 * @wait_mask: wait when the sequence number has none of these bits, until the host says go on
 * @slow:	 the least that a write must take to be logged, in ticks
 * @sequence:	 the last record that is whole; the first one has 1
 * @slow_writes: how many were logged, the latest LOG_WORDS of them are there
 * @late:	 how much too late that was, in ticks
 * @ended:	 when the last write had ended; 0 if it has waited since. Only threads have it here
 */
struct writer_box {
	uint32_t first;
	uint32_t end;
	uint32_t log;
	uint32_t stop;
	uint32_t wait_mask;
	uint32_t slow;
	uint32_t sequence;
	uint32_t slow_writes;
	uint32_t late;
	uint32_t ended;
};

/**
 * struct writer - all CPUs
 * @low:	  ordinary memory, guest physical address 0: program, boxes, schedules, logs
 * @low_size:	  its size
 * @memory:	  the memory under test, guest physical address GUEST_MEMORY
 * @length:	  its size
 * @scheduled:	  entries of a schedule
 * @ticks_per_us: what times count
 */
struct writer {
	uint8_t *low;
	size_t low_size;
	uint8_t *memory;
	uint64_t length;
	uint32_t scheduled;
	double ticks_per_us;
};

/**
 * writer_init - lay out boxes and schedules
 * @w:	    filled in
 * @memory: the memory under test; not touched
 * @length: bytes, a multiple of 2 MiB, at most GUEST_MAX_LENGTH
 * @seed:   equal seeds give equal schedules
 *
 * Return: 0 or a negative errno.
 */
int writer_init(struct writer *w, void *memory, uint64_t length, uint64_t seed);
void writer_free(struct writer *w);

struct writer_box *writer_box(const struct writer *w, int cpu);
uint32_t writer_sequence(const struct writer *w, int cpu);

/* A log entry, by how many were logged before it. */
uint32_t writer_log(const struct writer *w, int cpu, uint32_t index);

/* The page of a CPU's write, counted from the start of the memory. */
uint32_t writer_page(const struct writer *w, int cpu, uint32_t sequence);

/* What a write leaves in its page. */
void writer_record(void *contents, uint32_t page, uint32_t sequence);

/*
 * For each page the sequence number of its last write when the CPUs have reached @sequence; 0 for
 * none. Return: an array to free, or NULL.
 */
uint32_t *writer_last(const struct writer *w, const uint32_t *sequence);

/* What writer_guest.S does, by the calling thread: one write. */
void writer_write(struct writer *w, int cpu);

/* All of them. Return: 0 when it was told to stop, 1 to wait, -EINTR when @until is set. */
int writer_by_thread(struct writer *w, int cpu, const int *until);

#endif /* WRITER_H */
