/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HGM_MODEL=NAME: the whole program runs on the model of that kernel.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

static bool begun;

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("HGM_MODEL");
	struct model_opts opts;

	if (!name || !*name)
		return;
	if (!model_named(name, &opts)) {
		fprintf(stderr, "HGM_MODEL=%s: no such model\n", name);
		exit(2);
	}
	model_begin(&opts);
	begun = true;
}

__attribute__((destructor)) static void end(void)
{
	if (begun)
		model_end();
}
