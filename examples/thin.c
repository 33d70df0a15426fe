/* SPDX-License-Identifier: 0BSD */
/*
 * thin - only the thin level: one kernel operation per call, for a VMM with its own threads
 *
 * A 2 MiB block of shared memory is mapped twice. A thread touches the primary mapping and faults
 * on a 4 KiB page. The contents are written through the alias. Then the program maps the page that
 * the thread waits for, maps the rest, and turns the block into one huge mapping.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hgm/error.h>
#include <hgm/uffd.h>

#define BLOCK (UINT64_C(2) << 20)
#define PAGE  UINT64_C(4096)

static void check(int rc, const char *what)
{
	const char *text = hgm_errmsg();

	if (rc >= 0)
		return;
	fprintf(stderr, "thin: %s: %s\n", what, *text ? text : strerror(-rc));
	exit(1);
}

/* Map the file at an address that is aligned to the block size. */
static uint8_t *map(int fd)
{
	uint8_t *at = mmap(NULL, 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		check(-errno, "mmap");
	at += BLOCK - (uintptr_t)at % BLOCK;
	if (mmap(at, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		check(-errno, "mmap");
	return at;
}

static void *touch(void *address)
{
	printf("toucher: read %d\n", *(volatile uint8_t *)address);
	return NULL;
}

int main(void)
{
	struct hgm_uffd_opts opts = {
		.size = sizeof(opts),
		.required = HGM_UFFD_FEATURE_MINOR_SHMEM,
		.optional = HGM_UFFD_FEATURE_EXACT_ADDRESS,
	};
	int fd = memfd_create("thin", MFD_CLOEXEC);
	struct hgm_uffd_event event;
	struct hgm_range range = { .step = PAGE };
	struct hgm_uffd *uffd;
	uint8_t *primary, *alias;
	struct pollfd ready;
	pthread_t thread;
	uint64_t huge;

	if (fd < 0 || ftruncate(fd, BLOCK))
		check(-errno, "memfd");
	primary = map(fd);
	alias = map(fd);

	/* Use a huge page from the start, so that the collapse does not have to copy later. */
	alias[0] = 0;
	check(hgm_collapse(alias, BLOCK), "collapse of the alias");
	check(hgm_uffd_open(&uffd, &opts), "userfaultfd");
	check(hgm_uffd_register(uffd, primary, BLOCK, HGM_UFFD_MINOR, NULL), "register");
	if (pthread_create(&thread, NULL, touch, primary + 5 * PAGE + 123))
		check(-EAGAIN, "thread");

	ready = (struct pollfd){ .fd = hgm_uffd_fd(uffd), .events = POLLIN };
	poll(&ready, 1, -1);
	check(hgm_uffd_read(uffd, &event, 1), "read");
	range.addr = (void *)(uintptr_t)(event.addr / PAGE * PAGE);
	printf("handler: a fault at page %td\n",
	       ((uint8_t *)range.addr - primary) / (ptrdiff_t)PAGE);

	memset(alias, 42, BLOCK);
	range.len = PAGE;
	check(hgm_uffd_continue(uffd, &range), "continue of a page");
	pthread_join(thread, NULL);

	range = (struct hgm_range){ .addr = primary, .len = BLOCK, .step = PAGE };
	check(hgm_uffd_continue(uffd, &range), "continue of the rest");
	printf("handler: %llu KiB mapped, %llu KiB were so already\n",
	       (unsigned long long)range.installed >> 10, (unsigned long long)range.existed >> 10);

	check(hgm_collapse(primary, BLOCK), "collapse");
	check(hgm_uffd_wake(uffd, primary, BLOCK), "wake");
	if (!hgm_mapped_huge(primary, BLOCK, &huge))
		printf("handler: %llu KiB are mapped huge now\n", (unsigned long long)huge >> 10);
	hgm_uffd_close(uffd);
	close(fd);
	return 0;
}
