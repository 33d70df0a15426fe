/* SPDX-License-Identifier: 0BSD */
/* A fault thread of one's own, in its shortest form. */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#define LENGTH (1 << 20)

static void *touch(void *address)
{
	printf("it holds %d\n", *(volatile char *)address);
	return NULL;
}

static void serve(struct hgm_uffd *u, const struct hgm_uffd_event *ev)
{
	struct hgm_range page = { .len = 4096, .step = 4096 };

	if (ev->type != HGM_UFFD_EVENT_PAGEFAULT)
		return;
	page.addr = (void *)(uintptr_t)(ev->addr & -(uint64_t)4096);
	printf("a fault at %p\n", page.addr);
	if (hgm_uffd_zeropage(u, &page))
		warnx("not served");
}

int main(void)
{
	struct hgm_uffd_event events[HGM_UFFD_READ_MAX];
	struct pollfd poller = { .events = POLLIN };
	struct hgm_uffd *u;
	pthread_t thread;
	char *memory;
	int n;

	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	if (hgm_uffd_open(&u, NULL) ||
	    hgm_uffd_register(u, memory, LENGTH, HGM_UFFD_MISSING,
			      NULL))
		errx(1, "%s", hgm_errmsg());
	if (pthread_create(&thread, NULL, touch, memory + 54321))
		errx(1, "no thread");

	poller.fd = hgm_uffd_fd(u);
	poll(&poller, 1, -1);
	n = hgm_uffd_read(u, events, HGM_UFFD_READ_MAX);
	if (n < 0 && n != -EAGAIN)
		errx(1, "%s", hgm_errmsg());
	for (int i = 0; i < n; i++)
		serve(u, &events[i]);

	pthread_join(thread, NULL);
	hgm_uffd_close(u);
	munmap(memory, LENGTH);
	return 0;
}
