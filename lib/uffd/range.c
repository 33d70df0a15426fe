/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The walk that all range operations share.
 *
 * The result field of these ioctls has three encodings: the full length, a positive partial length
 * (the ioctl returns EAGAIN, whatever the true reason was), or a negative errno. The walk continues
 * until the whole range is processed, or until an outcome remains that only the caller can handle:
 *
 *	full		done
 *	partial n > 0	advance by n and call again: the next result is the true one
 *	EEXIST		already mapped, or so it seems (hgm/uffd.h), but a thread may still wait
 *			for the page: WAKE, and advance one step
 *	ENOENT		no single memory area contains the whole piece: halve it; for a piece of
 *			one step, the error is true
 *	anything else	stop there
 */
#include <errno.h>
#include <stdbool.h>

#include "kernel/sys.h"
#include "uffd.h"
#include "util/error.h"

struct walk {
	struct hgm_uffd *u;
	struct hgm_range *r;
	const char *src;
	enum hgm_verb verb;
	bool until_exist;
	uint64_t wake_from; /* [wake_from, wake_to): existing pages whose waiters must be woken */
	uint64_t wake_to;
};

static const char *const verb_names[] = {
	[HGM_VERB_CONTINUE] = "UFFDIO_CONTINUE",
	[HGM_VERB_COPY] = "UFFDIO_COPY",
	[HGM_VERB_ZEROPAGE] = "UFFDIO_ZEROPAGE",
	[HGM_VERB_POISON] = "UFFDIO_POISON",
};

static int invalid(const char *verb, const struct hgm_range *r)
{
	return hgm_fail(-EINVAL,
			"%s of %llu bytes at %p in steps of %llu: the range is empty or not "
			"aligned to the step, or the kernel cannot do this on this memory",
			verb, (unsigned long long)r->len, r->addr, (unsigned long long)r->step);
}

static int missing(const char *verb)
{
	return hgm_fail(-EINVAL, "%s: the userfaultfd, the range or its contents is NULL", verb);
}

static bool aligned(const struct hgm_range *r)
{
	uint64_t addr = (uintptr_t)r->addr;

	return r->step && !(r->step & (r->step - 1)) && r->len && !(r->len % r->step) &&
	       !(addr % r->step) && addr + r->len > addr;
}

static int call(struct walk *w, uint64_t at, uint64_t len, int64_t *done)
{
	char *addr = (char *)w->r->addr + at;
	int fd = w->u->fd;

	*done = 0;
	switch (w->verb) {
	case HGM_VERB_CONTINUE:
		return hgm_sys->uffd_continue(fd, addr, len, w->r->mode, done);
	case HGM_VERB_COPY:
		return hgm_sys->uffd_copy(fd, addr, w->src + at, len, w->r->mode, done);
	case HGM_VERB_ZEROPAGE:
		return hgm_sys->uffd_zeropage(fd, addr, len, w->r->mode, done);
	case HGM_VERB_POISON:
		return hgm_sys->uffd_poison(fd, addr, len, w->r->mode, done);
	}
	return -EINVAL;
}

/* All four verbs have DONTWAKE in bit 0. */
static void flush_wake(struct walk *w)
{
	if (w->wake_to > w->wake_from && !(w->r->mode & 1))
		hgm_sys->uffd_wake(w->u->fd, (char *)w->r->addr + w->wake_from,
				   w->wake_to - w->wake_from);
	w->wake_from = w->wake_to = 0;
}

static void existed(struct walk *w)
{
	struct hgm_range *r = w->r;

	if (w->wake_to != r->done) {
		flush_wake(w);
		w->wake_from = r->done;
	}
	r->existed += r->step;
	r->done += r->step;
	w->wake_to = r->done;
}

static int walk(struct walk *w)
{
	struct hgm_range *r = w->r;
	uint64_t piece = r->len;
	int rc = 0;

	while (r->done < r->len) {
		uint64_t len = r->len - r->done < piece ? r->len - r->done : piece;
		int64_t got;

		rc = call(w, r->done, len, &got);
		if (!rc || got > 0) {
			/* Without this, a success that reports no length would loop forever. */
			uint64_t n = got > 0 ? (uint64_t)got : len;

			n = n < len ? n : len;
			r->installed += n;
			r->done += n;
			r->partials += n < len;
			piece = r->len;
			rc = 0;
		} else if (rc == -EEXIST && !w->until_exist) {
			existed(w);
			rc = 0;
		} else if (rc == -ENOENT && len > r->step) {
			piece = len / 2 / r->step * r->step;
		} else {
			break;
		}
	}
	flush_wake(w);
	return rc == -EINVAL ? invalid(verb_names[w->verb], r) : rc;
}

static int start(struct hgm_uffd *u, struct hgm_range *r, enum hgm_verb verb, const void *src,
		 bool until_exist)
{
	struct walk w = {
		.u = u,
		.r = r,
		.src = src,
		.verb = verb,
		.until_exist = until_exist,
	};

	if (!u || !r || (verb == HGM_VERB_COPY && !src))
		return missing(verb_names[verb]);
	r->done = r->installed = r->existed = r->partials = 0;
	if (!aligned(r))
		return invalid(verb_names[verb], r);
	return walk(&w);
}

int hgm_uffd_continue(struct hgm_uffd *u, struct hgm_range *r)
{
	return start(u, r, HGM_VERB_CONTINUE, NULL, false);
}

int hgm_uffd_copy(struct hgm_uffd *u, struct hgm_range *r, const void *src)
{
	return start(u, r, HGM_VERB_COPY, src, false);
}

int hgm_uffd_zeropage(struct hgm_uffd *u, struct hgm_range *r)
{
	return start(u, r, HGM_VERB_ZEROPAGE, NULL, false);
}

int hgm_uffd_poison(struct hgm_uffd *u, struct hgm_range *r)
{
	return start(u, r, HGM_VERB_POISON, NULL, false);
}

int hgm_range_until_exist(struct hgm_uffd *u, struct hgm_range *r, enum hgm_verb verb,
			  const void *src)
{
	return start(u, r, verb, src, true);
}

/* No result field and no partial results: the kernel looks for holes before it begins. */
int hgm_uffd_writeprotect(struct hgm_uffd *u, struct hgm_range *r)
{
	int rc;

	if (!u || !r)
		return missing("UFFDIO_WRITEPROTECT");
	r->done = r->installed = r->existed = r->partials = 0;
	if (!aligned(r))
		return invalid("UFFDIO_WRITEPROTECT", r);
	rc = hgm_sys->uffd_writeprotect(u->fd, r->addr, r->len, r->mode);
	if (!rc)
		r->done = r->installed = r->len;
	return rc == -EINVAL ? invalid("UFFDIO_WRITEPROTECT", r) : rc;
}
