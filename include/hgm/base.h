/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/base.h - common definitions for all libhgm headers
 */
#ifndef HGM_BASE_H
#define HGM_BASE_H

#include <stddef.h>
#include <stdint.h>

/* Marks each function that the shared library exports; lib/hgm.map lists the same names. */
#define HGM_PUBLIC __attribute__((visibility("default")))

#ifdef __cplusplus
#define HGM_BEGIN_DECLS extern "C" {
#define HGM_END_DECLS	}
#else
#define HGM_BEGIN_DECLS
#define HGM_END_DECLS
#endif

/*
 * These rules apply to every function of the library, unless its comment says otherwise:
 *
 *  - An int result is 0, or a negative errno. errno itself is never part of the contract.
 *  - After a failure, hgm_errmsg() describes in words what failed, on what, and what would help.
 *  - An option struct begins with its size in bytes (`.size = sizeof(struct ...)`). A NULL pointer
 *    selects the defaults, and so does each field that is zero. If the size is one that this
 *    library does not know, and there are bytes other than zero after the part that it knows, the
 *    result is -E2BIG. If the size is smaller than the first released version of the struct, the
 *    result is -EINVAL.
 *  - Addresses and lengths are in bytes.
 *  - "Calling thread: any" means any thread at any time, concurrently with all other calls, except
 *    the call that ends the same object. Threads never need to be registered. "Any but" is followed
 *    by "the library's own" threads, or by callbacks: the function must not be called from these.
 *  - If the object is NULL, or a pointer that must be given or is to be filled in is NULL, a
 *    function that returns int returns -EINVAL; other functions return 0 or NULL. A function that
 *    ends an object accepts NULL, and does nothing.
 *  - The library prints nothing, ends no process, and leaves no descriptor open across exec.
 */

#endif /* HGM_BASE_H */
