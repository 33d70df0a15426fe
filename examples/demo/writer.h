/* SPDX-License-Identifier: 0BSD */
/*
 * The guest that writes (writer_guest.S): its schedules, the same work done by a thread where KVM
 * is not available, and the contents that its memory must have after a number of writes.
 *
 * The page of a CPU's n-th write is known in advance. Every page belongs to one CPU. Half of a
 * CPU's writes go to a sixteenth of its pages, the other half to all its other pages in turn, in a
 * shuffled order. So the sequence numbers that the CPUs have reached tell the last write of each
 * page, and with it each byte of memory.
 */
#ifndef WRITER_H
#define WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "writer_guest.h"

/**
 * struct writer_box - what the host and a CPU tell each other
 * @first:	 guest address of its schedule: a guest address of a page for each write
 * @end:	 end of the schedule, after which it starts again
 * @log:	 guest address of its log: the times of slow writes, in ticks
 * @stop:	 end after the current record
 * @wait_mask:	 wait for the host when the sequence number has none of these bits
 * @slow:	 log a write that takes at least this many ticks
 * @sequence:	 the last complete record; the first record has number 1
 * @slow_writes: number of writes logged; the log holds the latest LOG_WORDS of them
 * @late:	 how late the host ended the wait, in ticks
 * @ended:	 when the last write ended; 0 if the CPU has waited since. Used only by threads
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
 * @low:	  ordinary memory at guest physical address 0: program, boxes, schedules, logs
 * @low_size:	  size of @low
 * @memory:	  the memory under test, at guest physical address GUEST_MEMORY
 * @length:	  size of @memory
 * @scheduled:	  number of entries in a schedule
 * @ticks_per_us: unit of all times
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
 * writer_init - set up boxes and schedules
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

/* Return a log entry. @index is the number of entries logged before it. */
uint32_t writer_log(const struct writer *w, int cpu, uint32_t index);

/* Return the page number of a CPU's write, counted from the start of the memory. */
uint32_t writer_page(const struct writer *w, int cpu, uint32_t sequence);

/* Store the record of a write into @contents. */
void writer_record(void *contents, uint32_t page, uint32_t sequence);

/*
 * Find the sequence number of the last write of each page when the CPUs have reached @sequence; 0
 * if there is none. Return: an array that the caller must free, or NULL.
 */
uint32_t *writer_last(const struct writer *w, const uint32_t *sequence);

/* Do one write of writer_guest.S on the calling thread. */
void writer_write(struct writer *w, int cpu);

/* Do all writes. Return: 0 to stop, 1 to wait, -EINTR when @until is set. */
int writer_by_thread(struct writer *w, int cpu, const int *until);

#endif /* WRITER_H */
