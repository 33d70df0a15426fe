/* SPDX-License-Identifier: 0BSD */
/* Contents that another thread brings. A pipe is the queue. */
#include <err.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <hgm/hgm.h>

static int queue[2];

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

/* On a fault thread: put the request aside, and be back at once. */
static int64_t ask(void *user, const struct hgm_io *io)
{
	(void)user;
	if (write(queue[1], io, sizeof(*io)) != sizeof(*io))
		err(1, "write");
	return HGM_IO_LATER;
}

static void *answer(void *arg)
{
	struct hgm_io io;

	(void)arg;
	while (read(queue[0], &io, sizeof(io)) == sizeof(io)) {
		memset(io.buf, 'x', io.length);
		check(hgm_io_done(&io, (int64_t)io.length));
	}
	return NULL;
}

int main(void)
{
	struct hgm_source_fn_opts how = {
		.size = sizeof(how),
		.length = 8 << 20,
	};
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_region *region;
	pthread_t thread;
	struct hgm *h;

	/* At most 1024 requests are unanswered: a pipe holds them. */
	if (pipe(queue) || pthread_create(&thread, NULL, answer, NULL))
		errx(1, "no pipe or no thread");
	opts.length = how.length;
	check(hgm_source_fn(&opts.source, ask, NULL, &how));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));
	printf("%c\n", *(char *)hgm_region_addr(region));

	hgm_destroy(h); /* nothing is unanswered from here on */
	hgm_source_destroy(opts.source);
	close(queue[1]);
	pthread_join(thread, NULL);
	close(queue[0]);
	return 0;
}
