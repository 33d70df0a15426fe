/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The named kernels.
 */
#include "model.h"

#include <string.h>

#define FEATURES_6_1  UINT64_C(0x1fff)
#define FEATURES_RFC  UINT64_C(0x3fff)
#define FEATURES_6_18 UINT64_C(0x1ffff)

static const struct {
	const char *name;
	struct model_opts opts;
} kernels[] = {
	{ "stock", { .features = FEATURES_6_18, .pagemap_scan = true } },
	{ "stock-6.1", { .features = FEATURES_6_1 } },
	{ "hgm", { .hgm = true, .features = FEATURES_6_1 } },
	{ "rfc", { .hgm = true, .rfc = true, .features = FEATURES_RFC } },
	{ "hgm-next",
	  { .hgm = true, .features = FEATURES_6_18, .pagemap_scan = true, .wp_4k = true } },
};

bool model_named(const char *name, struct model_opts *out)
{
	for (unsigned int i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
		if (strcmp(kernels[i].name, name) != 0)
			continue;
		*out = kernels[i].opts;
		out->sysfs = -1;
		out->pool_2m_pages = 640;
		out->pool_1g_pages = 2;
		return true;
	}
	return false;
}
