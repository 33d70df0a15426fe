/* SPDX-License-Identifier: 0BSD */
/*
 * Run on the model of another kernel. Only the demo of the test suite can do this
 * (test/model/demo.c).
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>

/* Make libhgm see the kernel that @name models. Return: false, with a text in @why, if none. */
bool model_use(const char *name, char *why, size_t size);

#endif /* MODEL_H */
