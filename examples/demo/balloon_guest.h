/* SPDX-License-Identifier: 0BSD */
/*
 * The protocol between the guest with a balloon (balloon_guest.S) and its host (balloon.c). The
 * assembler reads this file, too.
 *
 * A CPU has a list of its pages. Those before BOX_GIVEN are in the balloon, the others are in use.
 * The host sets where the border has to be (BOX_TARGET), and the guest moves it there, one unit at
 * a time. The guest has given up a unit when it has moved the border past it. From then on the host
 * may discard the unit.
 */
#ifndef BALLOON_GUEST_H
#define BALLOON_GUEST_H

#include "writer_guest.h"

/* struct balloon_box */
#define BOX_PAGES      0
#define BOX_PAGES_END  4
#define BOX_UNIT       8
#define BOX_TARGET     12
#define BOX_GIVEN      16
#define BOX_HALT       20
#define BOX_WRITES     24
#define BOX_LAPS       28
#define BOX_WRONG      32
#define BOX_WRONG_PAGE 36
#define BOX_WRONG_SUM  40

/* struct balloon_page */
#define PAGE_ADDRESS 0
#define PAGE_SUM     4
#define PAGE_WRITE   8
#define PAGE_BACK    12
#define PAGE_ENTRY   16

/* Bits of BOX_GIVEN: give up eight pages, or a unit, before the next page is used. */
#define BALLOON_BURST (7 * PAGE_ENTRY)

/*
 * A CPU that uses a page adds up the RECORD_WORDS words of the page that a record has
 * (writer_guest.h). It compares the sum with PAGE_SUM before it writes the next record. The sum of
 * a zero page is 0.
 */

#endif /* BALLOON_GUEST_H */
