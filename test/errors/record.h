/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which function of the public interface said what, noted while tests run: for compare.py, which
 * wants to see every error that the headers promise.
 *
 * Sources of tests are compiled with calls of hgm_NAME() turned into recorded_hgm_NAME(), which
 * wrap.py writes; programs against the installed library get the same by LD_PRELOAD. What the
 * library calls of itself is not noted. Without HGM_RECORD in the environment nothing is.
 */
#ifndef HGM_TEST_RECORD_H
#define HGM_TEST_RECORD_H

/* A row of the record: a function's name, then a byte for each errno, 1 where it was returned. */
#define RECORD_NAME_BYTES 48
#define RECORD_ERRNOS	  160 /* the last stands for all that are greater */

extern const char *const record_names[];
extern const unsigned int record_rows;

/* @result: what the function returned; what is not negative is no error. */
void record_call(unsigned int row, long result);

#endif
