/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps of 64-bit words.
 */
#ifndef HGM_LIB_BITS_H
#define HGM_LIB_BITS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Number of words that hold @bits bits. */
static inline uint64_t hgm_bits_words(uint64_t bits)
{
	return (bits + 63) / 64;
}

/* The lowest @n bits of a word; all of its bits if @n is 64 or more. */
static inline uint64_t hgm_bits_low(uint64_t n)
{
	return n >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

/* What a shift of @bits to the left by @shift, below 64, moves into the next word. */
static inline uint64_t hgm_bits_carry(uint64_t bits, uint64_t shift)
{
	return shift ? bits >> (64 - shift) : 0;
}

/* The bits of word @word that stand for [first, first + n). Some of that range must lie in it. */
static inline uint64_t hgm_bits_of_range(uint64_t first, uint64_t n, uint64_t word)
{
	uint64_t low = word * 64 > first ? 0 : first - word * 64;

	return hgm_bits_low(first + n - word * 64) & ~UINT64_C(0) << low;
}

/* Is a bit of a bitmap set? (acquire) */
static inline bool hgm_bits_test(const _Atomic uint64_t *bitmap, uint64_t bit)
{
	return atomic_load_explicit(&bitmap[bit / 64], memory_order_acquire) >> bit % 64 & 1;
}

/* Number of consecutive set bits from the lowest bit on. */
static inline uint64_t hgm_bits_ones(uint64_t bits)
{
	return ~bits ? (uint64_t)__builtin_ctzll(~bits) : 64;
}

/* Take the lowest run of set bits out of a word. Returns false if there is none. */
static inline bool hgm_bits_take_run(uint64_t *bits, uint64_t *first, uint64_t *run)
{
	if (!*bits)
		return false;
	*first = (uint64_t)__builtin_ctzll(*bits);
	*run = hgm_bits_ones(*bits >> *first);
	*bits &= ~hgm_bits_low(*first + *run);
	return true;
}

#endif
