/* SPDX-License-Identifier: 0BSD */
/* A VMM's main loop that also looks after memory that still arrives. */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <hgm/hgm.h>

static void check(int rc)
{
	if (rc)
		errx(1, "%s", hgm_errmsg());
}

static int64_t zeroes(void *user, const struct hgm_io *io)
{
	(void)user;
	return (int64_t)io->length + HGM_IO_ZERO;
}

int main(void)
{
	struct hgm_region_opts opts = { .size = sizeof(opts) };
	struct hgm_progress p = { .size = sizeof(p) };
	struct hgm_region *region;
	struct pollfd poller;
	uint64_t count;
	struct hgm *h;
	int rc;

	opts.length = 16 << 20;
	check(hgm_source_fn(&opts.source, zeroes, NULL, NULL));
	check(hgm_create(&h, NULL));
	check(hgm_region_create(&region, h, &opts));
	check(hgm_start(h));

	poller.fd = hgm_event_fd(h);
	poller.events = POLLIN;
	do {
		/* A wakeup that is missed costs a second. */
		if (poll(&poller, 1, 1000) > 0 &&
		    read(poller.fd, &count, sizeof(count)) < 0)
			err(1, "read");
		check(hgm_get_progress(h, &p));
		printf("%d of %d MiB, %d of them huge\n",
		       (int)(p.present_bytes >> 20),
		       (int)(p.total_bytes >> 20),
		       (int)(p.huge_bytes >> 20));
	} while (!p.complete);

	rc = hgm_wait(h, 0);
	if (rc == -EIO)
		warnx("some pages are lost: %s", hgm_errmsg());
	else
		check(rc);
	hgm_destroy(h);
	hgm_source_destroy(opts.source);
	return 0;
}
