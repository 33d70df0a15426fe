/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Doubly linked lists of links that are the first member of what they link.
 */
#ifndef HGM_NBD_LIST_H
#define HGM_NBD_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *list)
{
	list->prev = list->next = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

/* Take it from its list, if it is in one. */
static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

static inline void list_append(struct list *list, struct list *link)
{
	list_remove(link);
	link->prev = list->prev;
	link->next = list;
	list->prev->next = link;
	list->prev = link;
}

static inline void *list_first(const struct list *list)
{
	return list_empty(list) ? NULL : list->next;
}

#endif
