/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A life of everything that the library creates, over and over. Each time the next piece of memory,
 * thread, mapping or descriptor that it asks for is refused. The call that needed it reports that,
 * or does without. When repeated, it succeeds. The contents are right in the end, and nothing is
 * left behind.
 */
#include "lives.h"
#include "refusal.h"

#include <errno.h>
#include <stdlib.h>

#define ROUNDS_MAX 2000 /* no life needs so many */

static enum refusal what; /* the kind that is refused at the moment */
static unsigned int refused_calls;

static void in_due_form(int rc, const char *call)
{
	if (rc != refusal_errors[what])
		fail_msg("%s: %s: %s: %s", lives_hooks.what, call, strerrorname_np(-rc),
			 hgm_errmsg());
	refused_calls++;
}

static void refuse_each(const struct life *life, enum refusal refusal)
{
	/* An emulated machine has no time for more than a sample. */
	unsigned int step = getenv("HGM_TEST_SLOW") ? 23 : 1;
	bool refused = true;

	what = refusal;
	for (unsigned int nth = 0; refused && nth < ROUNDS_MAX; nth += step) {
		struct remains r = remains_take();

		snprintf(lives_hooks.what, sizeof(lives_hooks.what), "%s: %s %u refused",
			 life->name, refusal_names[what], nth);
		refusal_arm(what, nth);
		life->run(life);
		refused = refusal_disarm();
		assert_nothing_remains(&r);
	}
	assert_false(refused);
}

static void each_life(void **state)
{
	unsigned int calls[REFUSALS] = { 0 };

	(void)state;
	lives_hooks.failed = in_due_form;
	for (const struct life *life = lives; life->name; life++) {
		if (life_lacking(life))
			continue;
		watch(life->name, 300);
		catch_faults();
		life->run(life); /* creates what is created only once */
		for (enum refusal refusal = 0; refusal < REFUSALS; refusal++) {
			refused_calls = 0;
			refuse_each(life, refusal);
			calls[refusal] += refused_calls;
		}
		calm();
	}
	for (enum refusal refusal = 0; refusal < REFUSALS; refusal++) {
		print_message("%s: %u calls were refused it\n", refusal_names[refusal],
			      calls[refusal]);
		assert_true(calls[refusal]);
	}
}

/* The first engine starts the thread that frees memory, for all later engines. */
static void the_first_engine(void **state)
{
	struct hgm *h;

	(void)state;
	refusal_arm(REFUSE_THREAD, 0);
	assert_error(hgm_create(&h, NULL), -EAGAIN);
	assert_true(refusal_disarm());
	assert_ok(hgm_create(&h, NULL));
	hgm_destroy(h);
}

static int make(void **state)
{
	(void)state;
	lives_prepare();
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_first_engine), /* must be the first */
	cmocka_unit_test(each_life),
};

int main(void)
{
	return cmocka_run_group_tests(tests, make, NULL);
}
