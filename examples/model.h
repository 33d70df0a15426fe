/* SPDX-License-Identifier: 0BSD */
/*
 * Running on the model of another kernel: only the demo of the test suite can (test/model/demo.c)
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>

/* From here on libhgm sees the kernel that @name models. False: there is none; @why says more. */
bool model_use(const char *name, char *why, size_t size);

#endif /* MODEL_H */
