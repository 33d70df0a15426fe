/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each call of the library to the kernel gets each result that it can have, one at a time. The call
 * that needed it reports that, or does without. When repeated, it succeeds. The contents are right
 * in the end, no thread is left asleep, and nothing is left behind.
 */
#include "inject.h"
#include "lives.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SITES_MAX 400

/* The calls from one place that fail. */
static const unsigned int nths[] = { 0, 1, 7 };
#define NTHS (sizeof(nths) / sizeof(nths[0]))

/* Of the results of a place that an earlier life has reached, one in this many is tried. */
#define KNOWN_STEP 4

/* The place, the call and the result that are tried at the moment. */
static const struct inject_site *backing;
static unsigned int nth;
static int result;
static unsigned int runs, made, told;
static bool can_poison;

static bool is_hard(int error)
{
	switch (error) {
	case -EINVAL:
	case -EFAULT:
	case -EIO:
	case -EPERM:
	case -EHWPOISON:
	case -ENOENT:
	case -ESRCH:
		return true;
	}
	return false;
}

/* The text names the kernel's error. Range verbs have no text for common results. */
static void in_due_form(int rc, const char *call)
{
	int error = result < 0 ? result : -EAGAIN;

	if (rc >= 0)
		fail_msg("%s: %s returns %d", lives_hooks.what, call, rc);
	if (rc != error && !strstr(hgm_errmsg(), strerrorname_np(-error)))
		fail_msg("%s: %s returns %s: %s", lives_hooks.what, call, strerrorname_np(-rc),
			 hgm_errmsg());
	told++;
}

static void arm(void)
{
	inject_arm(backing, nth, result);
}

static void inject(const struct life *life)
{
	struct remains r = remains_take();

	snprintf(lives_hooks.what, sizeof(lives_hooks.what), "%s: call %u of %s at %#llx: %s",
		 life->name, nth, backing->verb->name, (unsigned long long)inject_backing(backing),
		 inject_result_name(result));
	watch(lives_hooks.what, 240);
	catch_faults();
	lives_hooks.may_poison = is_hard(result);
	lives_hooks.begins = arm;
	life->run(life);
	made += inject_disarm();
	runs++;
	assert_nothing_remains(&r);
}

/* The places that a life reaches. */
static unsigned int find_sites(const struct life *life, struct inject_site *sites)
{
	unsigned int count;

	watch(life->name, 240);
	catch_faults();
	snprintf(lives_hooks.what, sizeof(lives_hooks.what), "%s", life->name);
	lives_hooks.may_poison = false;
	lives_hooks.plain = true;
	lives_hooks.huge = true;
	lives_hooks.begins = NULL;
	life->run(life); /* creates what is created only once */
	lives_hooks.begins = inject_count;
	life->run(life);
	inject_count_no_more();
	lives_hooks.plain = false;
	count = inject_sites(sites, SITES_MAX);
	assert_true(count && count < SITES_MAX);
	return count;
}

static struct inject_site known[SITES_MAX];
static unsigned int known_count;

/* True if an earlier life has reached this place. */
static bool is_known(const struct inject_site *site)
{
	for (unsigned int i = 0; i < known_count; i++)
		if (known[i].verb == site->verb && known[i].from == site->from)
			return true;
	assert_true(known_count < SITES_MAX);
	known[known_count++] = *site;
	return false;
}

/*
 * ENOENT says that no thread can touch the page, so it is given up at once. If a page cannot be
 * poisoned, a thread that touches it anyway waits until it is requested again: here for ever.
 */
static bool is_deadly(const struct inject_site *site, int error)
{
	return error == -ENOENT && !can_poison &&
	       (!strcmp(site->verb->name, "UFFDIO_COPY") ||
		!strcmp(site->verb->name, "UFFDIO_ZEROPAGE"));
}

static void live(const struct life *life)
{
	/* An emulated machine has no time for more than a sample. */
	unsigned int step, slow = getenv("HGM_TEST_SLOW") ? 11 : 1, count;
	struct inject_site sites[SITES_MAX];
	static unsigned int at;

	runs = made = told = 0;
	count = find_sites(life, sites);
	for (unsigned int i = 0; i < count; i++) {
		step = slow * (life->every ? life->every : 1);
		step *= is_known(&sites[i]) && life->every ? KNOWN_STEP : 1;
		backing = &sites[i];
		for (const int *error = backing->verb->results; *error; error++)
			for (unsigned int k = 0; k < NTHS && nths[k] < backing->calls; k++) {
				result = *error;
				nth = nths[k];
				if (at++ % step == 0 && !is_deadly(backing, result))
					inject(life);
			}
	}
	calm();
	print_message("%s: %u places, %u failed once in %u lives, %u errors told\n", life->name,
		      count, made, runs, told);
	assert_true(made);
}

static void each_life(void **state)
{
	(void)state;
	lives_hooks.failed = in_due_form;
	for (const struct life *life = lives; life->name; life++)
		if (!life_lacking(life))
			live(life);
}

static int make(void **state)
{
	(void)state;
	can_poison = kernel_has(KERNEL_POISON);
	lives_prepare();
	inject_begin();
	return 0;
}

static const struct CMUnitTest tests[] = { cmocka_unit_test(each_life) };

int main(void)
{
	return cmocka_run_group_tests(tests, make, NULL);
}
