/* SPDX-License-Identifier: 0BSD */
/*
 * The installed library knows only the running kernel: see model.h
 */
#include <stdio.h>

#include "../model.h"

bool model_use(const char *name, char *why, size_t size)
{
	snprintf(why, size, "this program has no model '%s'; `./run demo --model %s` has", name,
		 name);
	return false;
}
