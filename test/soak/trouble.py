#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make trouble for running tests, until SIGTERM: trouble.py BUILDDIR [SEED]

One busy loop for each CPU; a third of the free memory taken and given back, again and again; and
test programs of BUILDDIR stopped for up to 100 ms, one at a time, in whatever they are doing.
"""

import mmap
import os
import random
import signal
import sys
import time

STOP_MS_MAX = 100
PAUSE_MS_MAX = 200
HOG_PART = 3  # of what is available


def busy():
    while True:
        pass


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def hog_memory():
    while True:
        with mmap.mmap(-1, available_bytes() // HOG_PART + mmap.PAGESIZE,
                       flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
            time.sleep(random.uniform(0.1, 2))
        time.sleep(random.uniform(0.1, 2))


def start(work):
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
    return pid


def programs(directory):
    """Processes that run a program from this directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe").startswith(directory):
                found.append(int(pid))
        except OSError:
            pass  # it has ended
    return found


class Over(Exception):
    pass


def over(*_):
    raise Over


def stop_programs(directory):
    """Returns when it is over: how many were stopped."""
    stops = 0
    pid = None
    try:
        while True:
            time.sleep(random.uniform(0, PAUSE_MS_MAX / 1000))
            found = programs(directory)
            if not found:
                continue
            pid = random.choice(found)
            try:
                os.kill(pid, signal.SIGSTOP)
                stops += 1
                time.sleep(random.uniform(0, STOP_MS_MAX / 1000))
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            pid = None
    except Over:
        if pid:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        return stops


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    directory = os.path.join(os.path.realpath(sys.argv[1]), "test", "")
    random.seed(sys.argv[2] if len(sys.argv) == 3 else None)
    signal.signal(signal.SIGTERM, over)
    children = [start(busy) for _ in range(os.cpu_count())] + [start(hog_memory)]
    stops = stop_programs(directory)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(f"trouble: test programs were stopped {stops} times", flush=True)


if __name__ == "__main__":
    main()
