/* SPDX-License-Identifier: 0BSD */
/*
 * A progress bar on the terminal's last line
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <hgm/engine.h>

void progress_show(const char *name, const struct hgm_progress *p);
void progress_note(const char *name, const char *note);
void progress_clear(void);

#endif /* PROGRESS_H */
