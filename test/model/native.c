/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "native.h"

#include <fcntl.h>

#define RECORDS (1u << 18)

const struct contents native_contents = { .seed = 90, .holes = true };

struct meddling meddling;
const struct hgm_sys *model_kernel;

static struct record record[RECORDS];
static unsigned int recorded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hgm_sys sys;

static void put(enum call call, const void *addr, uint64_t len, int rc)
{
	pthread_mutex_lock(&lock);
	if (recorded < RECORDS)
		record[recorded] = (struct record){ call, (uintptr_t)addr, len, rc };
	recorded++;
	pthread_mutex_unlock(&lock);
}

unsigned int records(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = recorded;
	pthread_mutex_unlock(&lock);
	if (n > RECORDS)
		fail_msg("%u calls: more than can be recorded", n);
	return n;
}

void records_forget(void)
{
	pthread_mutex_lock(&lock);
	recorded = 0;
	pthread_mutex_unlock(&lock);
}

struct record record_at(unsigned int i)
{
	struct record r;

	pthread_mutex_lock(&lock);
	r = record[i];
	pthread_mutex_unlock(&lock);
	return r;
}

unsigned int calls_in(enum call call, const void *addr, uint64_t len)
{
	uint64_t start = (uintptr_t)addr;
	unsigned int n = 0;

	for (unsigned int i = 0; i < records(); i++) {
		struct record r = record_at(i);

		n += r.call == call && r.addr >= start && r.addr < start + len;
	}
	return n;
}

static int recording_madvise(void *addr, uint64_t len, int advice)
{
	int rc = (meddling.madvise ? meddling.madvise : model_kernel->madvise)(addr, len, advice);

	if (advice == HGM_MADV_SPLIT)
		put(CALL_SPLIT, addr, len, rc);
	else if (advice == HGM_MADV_COLLAPSE)
		put(CALL_COLLAPSE, addr, len, rc);
	return rc;
}

static int recording_continue(int fd, void *addr, uint64_t len, uint64_t mode, int64_t *done)
{
	int rc = (meddling.uffd_continue ? meddling.uffd_continue
					 : model_kernel->uffd_continue)(fd, addr, len, mode, done);

	put(CALL_CONTINUE, addr, len, rc);
	return rc;
}

static int recording_open(const char *path, int flags)
{
	return (meddling.open ? meddling.open : model_kernel->open)(path, flags);
}

static int recording_wake(int fd, void *addr, uint64_t len)
{
	int rc = model_kernel->uffd_wake(fd, addr, len);

	put(CALL_WAKE, addr, len, rc);
	return rc;
}

static int recording_api(int fd, uint64_t *features, uint64_t *ioctls)
{
	uint64_t asked = *features;
	int rc = model_kernel->uffd_api(fd, features, ioctls);

	put(CALL_API, (void *)(uintptr_t)asked, 0, rc);
	return rc;
}

static int recording_register(int fd, void *addr, uint64_t len, uint64_t modes, uint64_t *ioctls)
{
	int rc = model_kernel->uffd_register(fd, addr, len, modes, ioctls);

	put(CALL_REGISTER, addr, len, rc);
	return rc;
}

void native_begin(const struct model_opts *opts)
{
	watch("a native region", 100);
	records_forget();
	meddling = (struct meddling){ 0 };
	model_begin(opts);
	model_kernel = hgm_sys;
	sys = *hgm_sys;
	sys.madvise = recording_madvise;
	sys.open = recording_open;
	sys.uffd_api = recording_api;
	sys.uffd_register = recording_register;
	sys.uffd_continue = recording_continue;
	sys.uffd_wake = recording_wake;
	hgm_sys = &sys;
}

void native_begin_named(const char *name)
{
	struct model_opts opts;

	assert_true(model_named(name, &opts));
	native_begin(&opts);
}

void native_end(void)
{
	unsigned int left = model_left();

	meddling = (struct meddling){ 0 };
	model_end();
	calm();
	assert_int_equal(left, 0);
}

int on_hgm(void **state)
{
	(void)state;
	native_begin_named("hgm");
	return 0;
}

int on_hgm_next(void **state)
{
	(void)state;
	native_begin_named("hgm-next");
	return 0;
}

int on_rfc(void **state)
{
	(void)state;
	native_begin_named("rfc");
	return 0;
}

int off(void **state)
{
	(void)state;
	native_end();
	return 0;
}

void native_make(struct native *n, uint64_t block, uint64_t length, enum provider_kind kind,
		 uint32_t flags)
{
	struct hgm_region_opts o = { .size = sizeof(o),
				     .length = length,
				     .backing = HGM_BACKING_HUGETLB,
				     .block_bytes = block,
				     .flags = flags,
				     .fd = -1 };

	*n = (struct native){ .length = length };
	n->h = engine(2);
	n->provider = provider_make(kind, &native_contents, length);
	o.source = provider_source(n->provider);
	/* The first region makes the library test the kernel, on scratch memory at any address. */
	assert_ok(hgm_region_create(&n->r, n->h, &o));
	hgm_region_destroy(n->r);
	records_forget();
	assert_ok(hgm_region_create(&n->r, n->h, &o));
	n->addr = hgm_region_addr(n->r);
	if (info_of(n->r).map_bytes != PAGE || !strstr(info_of(n->r).sentence, "high-granularity"))
		fail_msg("not native: %s", info_of(n->r).sentence);
}

struct hgm_region_opts native_opts(uint32_t backing, uint64_t length,
				   const struct provider *provider)
{
	return (struct hgm_region_opts){ .size = sizeof(struct hgm_region_opts),
					 .length = length,
					 .backing = backing,
					 .source = provider_source(provider),
					 .fd = -1 };
}

void native_free(struct native *n)
{
	hgm_region_destroy(n->r);
	hgm_destroy(n->h);
	provider_free(n->provider);
}

struct model_leaves leaves_of(const struct native *n)
{
	return model_leaves(n->addr, n->length);
}

static bool is_huge(void *arg)
{
	const struct native *n = arg;
	struct hgm_region_info info = info_of(n->r);
	struct model_leaves l = leaves_of(n);

	return info.huge_bytes == n->length &&
	       (info.block_bytes == GIB ? l.pud : l.pmd) == n->length && !l.tables_4k;
}

void assert_all_huge(const struct native *n)
{
	struct native copy = *n;
	struct model_leaves l;

	assert_pages(&native_contents, 0, n->length / PAGE, n->addr);
	/* A late fault may have caused another check of a block. */
	if (eventually(is_huge, &copy, 3000))
		return;
	l = leaves_of(n);
	fail_msg("%llu kB in all: huge are %llu (info), pud %llu, pmd %llu, pte %llu, %llu tables; "
		 "%llu blocks left split",
		 (unsigned long long)n->length >> 10,
		 (unsigned long long)info_of(n->r).huge_bytes >> 10,
		 (unsigned long long)l.pud >> 10, (unsigned long long)l.pmd >> 10,
		 (unsigned long long)l.pte >> 10, (unsigned long long)l.tables_4k,
		 (unsigned long long)info_of(n->r).left_split);
}

void fetch(const struct native *n, uint64_t page, uint64_t pages)
{
	assert_ok(hgm_region_prefetch(n->r, page * PAGE, pages * PAGE));
	assert_ok(hgm_wait(n->h, WAIT_MS));
}

bool page_mapped(const void *addr)
{
	int fd = hgm_sys->open("/proc/self/pagemap", O_RDONLY);
	uint64_t word = 0;

	assert_true(fd >= 0);
	assert_int_equal(hgm_sys->pread(fd, &word, 8, (uintptr_t)addr / PAGE * 8), 8);
	hgm_sys->close(fd);
	return word >> 63;
}
