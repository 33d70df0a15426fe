/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hgm/base.h - what every libhgm header needs
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
 * Rules that hold for every function here unless its comment says otherwise:
 *
 *  - An int result is 0, or a negative errno. errno itself is never part of the contract.
 *  - After a failure hgm_errmsg() says in words what failed, on what, and what would help.
 *  - Option structs begin with their size in bytes (`.size = sizeof(struct ...)`); a NULL pointer
 *    asks for the defaults, and so does each zero field. A size this library does not know, with
 *    anything but zero bytes behind the part it knows, is -E2BIG; one smaller than the first
 *    released version of the struct is -EINVAL.
 *  - Addresses and lengths are in bytes.
 *  - "Calling thread: any" means any thread at any time, concurrently with all other calls, except
 *    with the call that ends the very object. No registration of threads is ever needed. "Any but"
 *    is followed by "the library's own" threads, or by callbacks: not inside these.
 *  - A NULL object, or NULL where something is to be filled in or must be given, is -EINVAL where a
 *    function returns int, else the answer is 0 or NULL. What ends an object takes NULL, and does
 *    nothing.
 *  - Nothing is printed, no process is ended, no descriptor survives exec.
 */

#endif /* HGM_BASE_H */
