/* SPDX-License-Identifier: 0BSD */
/*
 * The protocol between the guest programs (guest.S, writer_guest.S) and their host, and constants
 * of guest.S and walk.c. The assembler reads this file, too.
 */
#ifndef GUEST_H
#define GUEST_H

#define GUEST_CPUS 2
#define GUEST_PAGE 4096

/* Guest physical addresses: ordinary memory starts at 0, the memory under test at 1 GiB. */
#define GUEST_CODE   0x1000
#define GUEST_BOXES  0x2000
#define GUEST_TABLES 0x10000
#define GUEST_MEMORY 0x40000000

/* The most that fits between GUEST_MEMORY and the devices below 4 GiB. */
#define GUEST_MAX_LENGTH 0x80000000u

/* The guest uses these ports to say that it is done, or that it waits for the host. */
#define GUEST_DONE_PORT 0xf4
#define GUEST_WAIT_PORT 0xf5

/* The guest reads WORDS words of a page, STRIDE bytes apart, and times the first one. */
#define GUEST_WORDS  8
#define GUEST_STRIDE 516

/* A write adds ADDEND to the word at WRITTEN, which is one of the words that are read. */
#define GUEST_WRITTEN 1032
#define GUEST_ADDEND  0x01000193

/* Times are kept in ticks of 2^6 TSC cycles, so that 32 bits hold more than a minute. */
#define GUEST_TICK_SHIFT 6

/* One box per CPU: what the host and the CPU tell each other. EBX holds its address. */
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
