/* SPDX-License-Identifier: 0BSD */
/*
 * What the guest programs (guest.S, writer_guest.S) and their host agree on, and what guest.S and
 * walk.c do. Read by the assembler too.
 */
#ifndef GUEST_H
#define GUEST_H

#define GUEST_CPUS 2
#define GUEST_PAGE 4096

/* Guest physical addresses: ordinary memory from 0 on, the memory under test at 1 GiB. */
#define GUEST_CODE   0x1000
#define GUEST_BOXES  0x2000
#define GUEST_TABLES 0x10000
#define GUEST_MEMORY 0x40000000

/* The most that fits between GUEST_MEMORY and the devices below 4 GiB. */
#define GUEST_MAX_LENGTH 0x80000000u

/* How the guest says that it is done, and that it wants to wait until the host lets it go on. */
#define GUEST_DONE_PORT 0xf4
#define GUEST_WAIT_PORT 0xf5

/* A page's words that are read: WORDS of them, STRIDE bytes apart, the first one timed. */
#define GUEST_WORDS  8
#define GUEST_STRIDE 516

/* A write adds ADDEND to the word at WRITTEN, which is one of those that are read. */
#define GUEST_WRITTEN 1032
#define GUEST_ADDEND  0x01000193

/* Times are kept in ticks of 2^6 TSC cycles, so that 32 bits hold more than a minute. */
#define GUEST_TICK_SHIFT 6

/* One box per CPU: what it is told, and what it tells. EBX has its address. */
#define BOX_SIZE 0x100

/* struct walk_box */
#define BOX_STOP    0
#define BOX_ALL	    4
#define BOX_ROUNDS  8
#define BOX_PHASE   12
#define BOX_PASS(n) (16 + 16 * (n))
#define PASS_FIRST  0
#define PASS_END    4
#define PASS_WORDS  8
#define PASS_ORDER  12
#define PASS_COLD   0
#define PASS_WARM   1
#define PASS_LAST   2
#define PASS_ALL    3
#define PASSES	    4
#define PHASE_WRITE 8
#define PHASE_DONE  9

/* struct walk_visit */
#define VISIT_PAGE  0
#define VISIT_TICKS 4
#define VISIT_SIZE  8

#endif /* GUEST_H */
