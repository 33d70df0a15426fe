/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stages of a request. Only the files that run requests (step.c, answer.c, failure.c, run.c)
 * use these functions.
 *
 * Functions that return bool return true if the request still belongs to the caller, who runs it
 * further. *now_ns is the time if it has just been read, else 0. Reading it costs as much as four
 * locked instructions.
 */
#ifndef HGM_LIB_STEP_H
#define HGM_LIB_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "request.h"

#define HGM_GIVEN_UP_US 1000000 /* between tries of given-up pages that cannot be poisoned */

/* step.c: run this step of the request in @us microseconds. */
void hgm_step_put_off(struct hgm_request *req, enum hgm_request_step step, uint32_t us);

/* The kernel returned EAGAIN or has no memory. Try again later, with a longer delay each time. */
bool hgm_step_put_off_by_kernel(struct hgm_request *req, enum hgm_request_step step);

/* The first @pages no longer belong to the request. */
void hgm_step_advance(struct hgm_request *req, uint64_t pages);

/* The number of pages from the first one on, up to the first one that demand has taken over. */
uint64_t hgm_step_not_taken(const struct hgm_request *req);

/* The first @settled pages are finished. */
bool hgm_step_go_on(struct hgm_request *req, uint64_t settled);

/* Are the contents no longer needed? */
bool hgm_step_unwanted(const struct hgm_request *req);

/* An installation returned @rc. */
bool hgm_step_installed(struct hgm_request *req, int rc, uint64_t *now_ns);

/*
 * failure.c. hgm_step_failed(): the source failed. hgm_step_succeeded(): it succeeded, so requests
 * that failed before need not wait any longer.
 */
bool hgm_step_failed(struct hgm_request *req, int rc);
void hgm_step_succeeded(struct hgm_request *req);

/* True: the first page, and so every page after it, is beyond the end of a truncated file. */
bool hgm_step_cut_off(struct hgm_request *req, int rc);

/* answer.c: handle the delivered pages, up to the first one that demand has taken. */
bool hgm_step_contents(struct hgm_request *req, uint64_t *now_ns);

/* @zeroes: a bit for each page that is zero; NULL: all pages or none are zero, as @result says. */
bool hgm_step_answered(struct hgm_request *req, int64_t result, const uint64_t *zeroes, bool later,
		       uint64_t *now_ns);

/* Pages of a read-through have arrived, or never will. */
bool hgm_step_through(struct hgm_request *req, uint64_t pages, bool readable);

#endif
