/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The demo on a model of another kernel: see examples/model.h.
 */
#include <stdio.h>

#include "../../examples/model.h"
#include "model.h"

bool model_use(const char *name, char *why, size_t size)
{
	struct model_opts opts;

	if (!model_named(name, &opts)) {
		snprintf(why, size,
			 "there is no model '%s'; there are hgm, rfc, hgm-next, stock, "
			 "stock-6.1",
			 name);
		return false;
	}
	model_begin(&opts);
	return true;
}
