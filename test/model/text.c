/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text files: smaps, with the modelled kernel's view of huge pages, and the pools in sysfs.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SYSFS	 "/sys/kernel/mm/hugepages/"
#define SYSFS_VM "/sys/kernel/vm/hugepages/"

static int file_of(const char *text, size_t len)
{
	int fd = hgm_sys_linux.memfd_create("text", 0);

	if (fd < 0)
		return fd;
	if (write(fd, text, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET)) {
		hgm_sys_linux.close(fd);
		return -EIO;
	}
	return fd;
}

/* Is the huge page mapped in more than one place? */
static bool is_shared(const struct vma *v, uint64_t addr)
{
	uint64_t block = vma_block(v, addr);
	unsigned int n = 0;

	for (const struct vma *o = model.vmas; o; o = o->next) {
		uint64_t first = o->offset / v->file->block;

		if (o->file == v->file && block >= first &&
		    block - first < (o->end - o->start) / v->file->block)
			n += tree_any_mapped(&o->page[block - first], v->file->level);
	}
	return n > 1;
}

static const char *flag(bool on, const char *text)
{
	return on ? text : "";
}

static void print_fields(FILE *out, const struct vma *v, const char *flags)
{
	struct leaf_count all = { 0 };
	uint64_t shared = 0, private = 0;

	for (uint64_t at = v->start; at < v->end; at += v->file->block) {
		struct leaf_count one = { 0 };
		uint64_t sum;

		tree_count(&v->page[vma_index(v, at)], v->file->level, &one);
		sum = one.bytes[0] + one.bytes[1] + one.bytes[2];
		if (sum && is_shared(v, at))
			shared += sum;
		else
		private += sum;
		for (unsigned int i = 0; i < 3; i++)
			all.bytes[i] += one.bytes[i];
	}
	fprintf(out, "Size: %14lu kB\nKernelPageSize: %6lu kB\nMMUPageSize: %9lu kB\n",
		(v->end - v->start) >> 10, v->file->block >> 10, v->file->block >> 10);
	fprintf(out, "Rss: %17d kB\nPss: %17d kB\nAnonHugePages: %7d kB\nShmemPmdMapped: %6d kB\n",
		0, 0, 0, 0);
	fprintf(out, "Shared_Hugetlb: %6lu kB\nPrivate_Hugetlb: %5lu kB\n", shared >> 10,
		private >> 10);
	if (model.opts.hgm)
		fprintf(out,
			"HugetlbPudMapped: %4lu kB\nHugetlbPmdMapped: %4lu kB\n"
			"HugetlbPteMapped: %4lu kB\n",
			all.bytes[LEVEL_PUD] >> 10, all.bytes[LEVEL_PMD] >> 10,
			all.bytes[LEVEL_PTE] >> 10);
	fprintf(out, "VmFlags:%s%s%s mr mw me ms%s%s%s%s de%s ht%s%s \n",
		flag(strstr(flags, " rd"), " rd"), flag(strstr(flags, " wr"), " wr"),
		flag(v->shared, " sh"), flag(v->modes & HGM_UFFD_MISSING, " um"),
		flag(v->modes & HGM_UFFD_WP, " uw"), flag(strstr(flags, " lo"), " lo"),
		flag(strstr(flags, " dc"), " dc"), flag(strstr(flags, " nr"), " nr"),
		flag(v->modes & HGM_UFFD_MINOR, " ui"),
		flag(v->hm && !model.opts.no_hm && !model.opts.rfc, " hm"));
}

/* One real mapping, which may be several of the model's: split, or never merged. */
static void print_ours(FILE *out, uint64_t start, uint64_t end, const char *text)
{
	const char *flags = strstr(text, "VmFlags:");
	char perms[8] = "", device[32] = "", name[256] = "";
	unsigned long offset, inode;

	if (sscanf(text, "%*x-%*x %7s %lx %31s %lu %255[^\n]", perms, &offset, device, &inode,
		   name) < 4)
		return;
	for (struct vma *v = vma_next(start); v && v->start < end; v = v->next) {
		if (v->start < start)
			continue;
		fprintf(out, "%lx-%lx %s %08lx %s %lu %25s\n", v->start, v->end, perms, v->offset,
			device, inode, name);
		print_fields(out, v, flags ? flags : "");
	}
}

static void print_mapping(FILE *out, const char *text)
{
	uint64_t start, end;

	if (sscanf(text, "%lx-%lx ", &start, &end) == 2 && vma_in(start, end))
		print_ours(out, start, end, text);
	else
		fputs(text, out);
}

static int smaps(void)
{
	FILE *in = fopen("/proc/self/smaps", "re");
	char *text = NULL, *one = NULL;
	size_t len = 0, one_len = 0;
	FILE *out = open_memstream(&text, &len);
	FILE *mapping = open_memstream(&one, &one_len);
	char line[512];
	int fd = -ENOMEM;

	for (struct vma *v = model.vmas; v; v = v->next)
		vma_sync_range(v, v->start, v->end);
	while (in && out && mapping && fgets(line, sizeof(line), in)) {
		fputs(line, mapping);
		if (strncmp(line, "VmFlags:", 8) != 0) /* the last line of each mapping */
			continue;
		fputc(0, mapping);
		fflush(mapping);
		print_mapping(out, one);
		rewind(mapping);
	}
	if (mapping)
		fclose(mapping);
	if (out) {
		fclose(out);
		fd = file_of(text, len);
	}
	if (in)
		fclose(in);
	free(one);
	free(text);
	return fd;
}

static int pool_file(const char *path)
{
	unsigned long kb;
	char name[32], text[32];
	struct pool *p;
	uint64_t value;

	if (sscanf(path, SYSFS "hugepages-%lukB/%31s", &kb, name) != 2)
		return -ENOENT;
	p = pool_of(kb << 10);
	if (!p)
		return -ENOENT;
	if (!strcmp(name, "nr_hugepages"))
		value = p->total;
	else if (!strcmp(name, "free_hugepages"))
		value = pool_free(p);
	else if (!strcmp(name, "resv_hugepages"))
		value = p->promised;
	else
		value = 0;
	return file_of(text, (size_t)snprintf(text, sizeof(text), "%lu\n", value));
}

int model_open(const char *path, int flags)
{
	enum object object = OBJECT_OTHER;
	int fd;

	model_lock();
	if (!strcmp(path, "/proc/self/smaps")) {
		fd = smaps();
	} else if (!strcmp(path, SYSFS "hgm") || !strcmp(path, SYSFS_VM "hgm")) {
		fd = -ENOENT;
		if (model.opts.sysfs >= 0 &&
		    !strncmp(path, SYSFS_VM, sizeof(SYSFS_VM) - 1) == model.opts.sysfs_in_vm)
			fd = file_of(model.opts.sysfs ? "1\n" : "0\n", 2);
	} else if (!strncmp(path, SYSFS, sizeof(SYSFS) - 1)) {
		fd_reconcile();
		file_look_all();
		fd = pool_file(path);
	} else {
		model_unlock();
		fd = hgm_sys_linux.open(path, flags); /* may wait for a fifo */
		model_lock();
		if (!strcmp(path, "/proc/self/pagemap"))
			object = OBJECT_PAGEMAP;
	}
	fd_set_object(fd, object, NULL);
	model_unlock();
	return fd;
}
