/* SPDX-License-Identifier: 0BSD */
/*
 * A machine whose guest has a balloon: its pages, its CPUs, and what its memory must hold. See
 * balloon_guest.h for the protocol between the guest and its host.
 */
#ifndef BALLOON_H
#define BALLOON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balloon_guest.h"

/**
 * struct balloon_page - a page of a CPU
 * @address: guest address
 * @sum:     sum of the words that a record has
 * @write:   number of its record; 0 if none was written since the start, or since it was given up
 * @back:    it was given up once: the bytes outside the record are zeroes
 */
struct balloon_page {
	uint32_t address;
	uint32_t sum;
	uint32_t write;
	uint32_t back;
};

/**
 * struct balloon_box - what the host and a CPU tell each other; positions are guest addresses
 * @pages:	its list of struct balloon_page
 * @pages_end:	end of the list
 * @unit:	bytes of the list by which @given moves
 * @target:	where @given has to move to
 * @given:	the first page in use; the pages before it are in the balloon
 * @halt:	end after the current page
 * @writes:	records written
 * @laps:	how often the CPU has reached the end of the list
 * @wrong:	number of pages that did not hold what they must
 * @wrong_page: address of the last of them
 * @wrong_sum:	sum of that page
 */
struct balloon_box {
	uint32_t pages;
	uint32_t pages_end;
	uint32_t unit;
	uint32_t target;
	uint32_t given;
	uint32_t halt;
	uint32_t writes;
	uint32_t laps;
	uint32_t wrong;
	uint32_t wrong_page;
	uint32_t wrong_sum;
};

/**
 * struct balloon_opts - options of a machine
 * @memory: the memory under test; not touched
 * @base:   what it holds at the start
 * @length: bytes of both: a multiple of 2 MiB, at most GUEST_MAX_LENGTH
 * @unit:   bytes that are given up together, a power of two; @length is at least 4 units
 * @seed:   seed for the order of the pages
 * @kvm:    true to use KVM, false to use threads
 */
struct balloon_opts {
	void *memory;
	const uint8_t *base;
	uint64_t length;
	uint64_t unit;
	uint64_t seed;
	bool kvm;
};

struct balloon;

/*
 * Make a machine; it does not run yet. This function and others return 0, or a negative errno with
 * a text in @why.
 */
int balloon_create(struct balloon **out, const struct balloon_opts *opts, char *why, size_t size);

int balloon_start(struct balloon *b, char *why, size_t size);

/*
 * Set how many bytes have to be in the balloon: a multiple of GUEST_CPUS units. Only set fewer than
 * before when all that was given up has been taken.
 */
void balloon_set_target(struct balloon *b, uint64_t bytes);

/*
 * Take the next unit that the guest has given up and that was not taken yet, and set @offset to its
 * offset in memory. Return: false if there is none at the moment.
 */
bool balloon_take(struct balloon *b, uint64_t *offset);

/* Return how many bytes the guest has given up. */
uint64_t balloon_bytes(const struct balloon *b);

/* Return the number of laps of the CPU that has made the fewest. */
uint32_t balloon_laps(const struct balloon *b);

/* Return the number of records that all CPUs have written. */
uint64_t balloon_writes(const struct balloon *b);

/* Return: -EILSEQ if a CPU has found a wrong page, else 0. */
int balloon_verdict(const struct balloon *b, char *why, size_t size);

/*
 * Let the CPUs end. Return: 0; -ETIMEDOUT if a CPU hangs, and then the machine must not be
 * destroyed; the error of a CPU that has failed.
 */
int balloon_finish(struct balloon *b, char *why, size_t size);

/* After balloon_finish(): check each byte of the memory. Return: 0 or -EILSEQ. */
int balloon_check(const struct balloon *b, char *why, size_t size);

/* Call this only after balloon_finish() or before balloon_start(). */
void balloon_destroy(struct balloon *b);

#endif /* BALLOON_H */
