/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of memory that regions consist of, and what the caller supplies for them.
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/sys.h"

const char *const backing_names[] = {
	[BACKING_SHMEM] = "shmem prepared",
	[BACKING_SHMEM_LAZY] = "shmem lazy",
	[BACKING_ANON] = "anon",
	[BACKING_FD] = "caller's memfd",
	[BACKING_FD_LAZY] = "caller's memfd, lazy",
	[BACKING_MAPPING] = "caller's shared mapping",
	[BACKING_MAPPING_LAZY] = "caller's shared mapping, lazy",
	[BACKING_MAPPING_ANON] = "caller's anonymous mapping",
	[BACKING_HUGETLB_2M] = "hugetlb 2 MiB",
	[BACKING_FD_HUGETLB_2M] = "caller's hugetlb memfd",
	[BACKING_HUGETLB_1G] = "hugetlb 1 GiB",
};

uint64_t backing_block(enum backing backing)
{
	return backing == BACKING_HUGETLB_1G ? GIB : 2 * MIB;
}

bool backing_can_be_huge(enum backing backing)
{
	return backing < BACKINGS_SMALL;
}

/*
 * Returns the text of a file in /proc or /sys, on the kernel that the library sees. NULL: there is
 * no such file.
 */
static char *text_of(const char *path)
{
	int fd = hgm_sys->open(path, O_RDONLY);
	size_t have = 0, room = 4096;
	char *text = NULL;
	ssize_t n = 1;

	if (fd < 0)
		return NULL;
	while (n > 0) {
		room *= 2;
		text = realloc(text, room);
		assert_non_null(text);
		while (have < room - 1 && (n = hgm_sys->read(fd, text + have, room - 1 - have)) > 0)
			have += (size_t)n;
	}
	text[have] = 0;
	hgm_sys->close(fd);
	return text;
}

static long pool_free(uint64_t block)
{
	char path[100];
	char *text;
	long n = -1;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
		 (unsigned long long)block >> 10);
	text = text_of(path);
	if (text)
		n = strtol(text, NULL, 10);
	free(text);
	return n;
}

const char *backing_lacking(enum backing backing, uint64_t length)
{
	static char why[160];
	uint64_t block = backing_block(backing);
	long have;

	if (backing < BACKINGS_SMALL)
		return NULL;
	have = pool_free(block);
	if (have >= 0 && (uint64_t)have * block >= length)
		return NULL;
	if (have < 0) { /* a reason that ./run excuses */
		snprintf(why, sizeof(why), "no huge pages of %llu kB on this machine",
			 (unsigned long long)block >> 10);
		return why;
	}
	snprintf(why, sizeof(why), "%s: %ld free huge pages of %llu kB, too few for %llu kB",
		 backing_names[backing], have, (unsigned long long)block >> 10,
		 (unsigned long long)length >> 10);
	return why;
}

static char *map_aligned(uint64_t length, int flags, int fd)
{
	uint64_t head;
	void *raw, *out;
	char *at;

	assert_ok(hgm_sys->mmap(&raw, NULL, length + 2 * MIB, PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	head = -(uintptr_t)raw & (2 * MIB - 1);
	at = (char *)raw + head;
	if (head)
		hgm_sys->munmap(raw, head);
	hgm_sys->munmap(at + length, 2 * MIB - head);
	assert_ok(
		hgm_sys->mmap(&out, at, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0));
	return at;
}

/* Writes other bytes to two of three blocks, so that there are holes too. */
static void soil(char *at, uint64_t length, uint64_t block)
{
	for (uint64_t done = 0; done < length; done += block)
		if (done / block % 3 != 1)
			memset(at + done, 0xa5, length - done < block ? length - done : block);
}

int ram_try(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
	    struct hgm_source *src, uint64_t source_offset, uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = length,
				     .source = src,
				     .source_offset = source_offset,
				     .flags = flags,
				     .fd = -1 };
	bool huge = backing == BACKING_FD_HUGETLB_2M;
	char *soiled = NULL;
	int rc;

	*ram = (struct ram){ .fd = -1, .length = length };
	switch (backing) {
	case BACKING_SHMEM:
		o.backing = HGM_BACKING_SHMEM;
		break;
	case BACKING_SHMEM_LAZY:
		o.backing = HGM_BACKING_SHMEM_LAZY;
		break;
	case BACKING_ANON:
		o.backing = HGM_BACKING_ANON;
		break;
	case BACKING_HUGETLB_2M:
	case BACKING_HUGETLB_1G:
		o.backing = HGM_BACKING_HUGETLB;
		o.block_bytes = backing_block(backing);
		break;
	case BACKING_MAPPING_ANON:
		o.backing = HGM_BACKING_MAPPING;
		o.addr = ram->mapping = map_aligned(length, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		soil(ram->mapping, length, 64 * PAGE);
		break;
	default:
		ram->fd = hgm_sys->memfd_create("theirs",
						huge ? MFD_HUGETLB | 21U << HGM_MFD_HUGE_SHIFT : 0);
		assert_true(ram->fd >= 0);
		assert_ok(hgm_sys->ftruncate(ram->fd, length));
		soiled = map_aligned(length, MAP_SHARED, ram->fd);
		soil(soiled, length, huge ? 2 * MIB : 64 * PAGE);
		o.fd = ram->fd;
		o.backing = HGM_BACKING_FD;
		if (backing == BACKING_FD_LAZY || backing == BACKING_MAPPING_LAZY)
			o.flags |= HGM_REGION_LAZY;
		if (backing == BACKING_MAPPING || backing == BACKING_MAPPING_LAZY) {
			o.backing = HGM_BACKING_MAPPING;
			o.addr = ram->mapping = soiled;
			soiled = NULL;
		}
	}
	if (soiled)
		hgm_sys->munmap(soiled, length);
	rc = hgm_region_create(&ram->region, h, &o);
	if (rc)
		ram_release(ram);
	else
		ram->addr = hgm_region_addr(ram->region);
	return rc;
}

void ram_make(struct ram *ram, struct hgm *h, enum backing backing, uint64_t length,
	      struct hgm_source *src, uint32_t flags)
{
	assert_ok(ram_try(ram, h, backing, length, src, 0, flags));
}

void ram_release(struct ram *ram)
{
	if (ram->around)
		hgm_sys->munmap(ram->around, ram->around_length);
	else if (ram->mapping)
		hgm_sys->munmap(ram->mapping, ram->length);
	if (ram->fd >= 0)
		hgm_sys->close(ram->fd);
	ram->mapping = ram->around = NULL;
	ram->fd = -1;
}

void ram_end(struct ram *ram)
{
	hgm_region_destroy(ram->region);
	ram->region = NULL;
	ram_release(ram);
}

uint64_t huge_in_smaps(const void *addr, uint64_t length)
{
	char *smaps = text_of("/proc/self/smaps");
	uint64_t start, end, kb, sum = 0;
	const char *last;
	bool inside = false;

	assert_non_null(smaps);
	last = smaps + strlen(smaps);
	/* Not strchr(): AddressSanitizer would check all of the remaining text for each line. */
	for (char *line = smaps, *eol; (eol = memchr(line, '\n', (size_t)(last - line)));
	     line = eol + 1) {
		*eol = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			inside = start < (uintptr_t)addr + length && end > (uintptr_t)addr;
		else if (inside && (sscanf(line, "ShmemPmdMapped: %" SCNu64, &kb) == 1 ||
				    sscanf(line, "AnonHugePages: %" SCNu64, &kb) == 1))
			sum += kb << 10;
	}
	free(smaps);
	return sum;
}

struct huge_look {
	const struct ram *ram;
	uint64_t length, wanted;
	uint64_t info, scan, smaps;
};

static bool is_huge(void *arg)
{
	struct huge_look *l = arg;
	/*
	 * Memory behind the region's end is mapped huge with it, but does not count as the region's
	 * own.
	 */
	uint64_t own = l->wanted < l->ram->length ? l->wanted : l->ram->length;

	l->info = info_of(l->ram->region).huge_bytes;
	if (hgm_mapped_huge(l->ram->addr, l->length, &l->scan))
		l->scan = l->wanted; /* no PAGEMAP_SCAN here */
	l->smaps = huge_in_smaps(l->ram->addr, l->length);
	return l->info >= own && l->scan >= l->wanted && l->smaps >= l->wanted;
}

/* A late fault may have split a block again. The block gets time to become huge. */
void assert_huge(const struct ram *ram, enum backing backing)
{
	bool tail = backing == BACKING_SHMEM; /* its last block is rounded up */
	uint64_t length = tail ? (ram->length + 2 * MIB - 1) / (2 * MIB) * 2 * MIB : ram->length;
	uint64_t blocks = length / (2 * MIB);
	struct huge_look look = { .ram = ram,
				  .length = length,
				  .wanted = (blocks * 95 + 99) / 100 * 2 * MIB };

	if (!eventually(is_huge, &look, 20000))
		fail_msg("%s: of %llu blocks huge are %llu (info), %llu (PAGEMAP_SCAN), %llu "
			 "(smaps); %llu left split, the kernel said %d: %s",
			 backing_names[backing], (unsigned long long)blocks,
			 (unsigned long long)look.info >> 21, (unsigned long long)look.scan >> 21,
			 (unsigned long long)look.smaps >> 21,
			 (unsigned long long)info_of(ram->region).left_split,
			 info_of(ram->region).collapse_error, info_of(ram->region).sentence);
}
