/* SPDX-License-Identifier: 0BSD */
/*
 * The protocol between the guest that writes (writer_guest.S) and its host (writer.c). The
 * assembler reads this file, too.
 */
#ifndef WRITER_GUEST_H
#define WRITER_GUEST_H

#include "guest.h"

/*
 * A record has RECORD_WORDS words, RECORD_STRIDE bytes apart, from the first to the last bytes of
 * the page: the frame number of the page, the sequence number of the write, and a pattern of both,
 *
 *	word i = sequence * RECORD_FACTOR + frame + (i - 1) * RECORD_ADDEND
 */
#define RECORD_WORDS  16
#define RECORD_STRIDE 272
#define RECORD_FACTOR 0x01000193
#define RECORD_ADDEND 0x3c6ef372

/* struct writer_box */
#define BOX_FIRST	0
#define BOX_END		4
#define BOX_LOG		8
#define BOX_WRITE_STOP	12
#define BOX_WAIT_MASK	16
#define BOX_SLOW	20
#define BOX_SEQUENCE	24
#define BOX_SLOW_WRITES 28
#define BOX_LATE	32

/* Number of words in the log of slow writes, which is a ring. */
#define LOG_WORDS 0x40000

#endif /* WRITER_GUEST_H */
