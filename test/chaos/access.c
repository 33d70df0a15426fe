/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads and writes a page that may raise a signal. Words are stored and read one by one, so a
 * concurrent reader sees the old or the new word.
 */
#include "chaos.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Thread_local sigjmp_buf way_back;
static _Thread_local volatile sig_atomic_t prepared;

static void on_fault(int sig)
{
	if (!prepared) {
		char text[100];
		int n = snprintf(text, sizeof(text), "# CHAOS: signal %d; --seed %llu\n", sig,
				 (unsigned long long)life.seed);

		(void)!write(2, text, (size_t)n);
		signal(sig, SIG_DFL);
		return;
	}
	prepared = 0;
	siglongjmp(way_back, sig);
}

void catch_signals(void)
{
	struct sigaction act = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
}

static int file;

static void make_file(void)
{
	file = memfd_create("to be read", MFD_CLOEXEC);
}

int page_copy(uint64_t to[WORDS], const void *from)
{
	const uint64_t *in = from;
	int sig = sigsetjmp(way_back, SANITIZED);

	if (!sig) {
		prepared = 1;
		atomic_signal_fence(memory_order_seq_cst);
		for (unsigned int w = 0; w < WORDS; w++)
			to[w] = __atomic_load_n(&in[w], __ATOMIC_RELAXED);
		atomic_signal_fence(memory_order_seq_cst);
	}
	prepared = 0;
	return sig;
}

int page_store(void *to, const uint64_t *from, unsigned int words)
{
	uint64_t *out = to;
	int sig = sigsetjmp(way_back, SANITIZED);

	if (!sig) {
		prepared = 1;
		atomic_signal_fence(memory_order_seq_cst);
		for (unsigned int w = 0; w < words; w++)
			__atomic_store_n(&out[w], from[w], __ATOMIC_RELAXED);
		atomic_signal_fence(memory_order_seq_cst);
	}
	prepared = 0;
	return sig;
}

/*
 * The kernel faults in place of the writer. It returns EFAULT where an access would raise a signal.
 */
int page_store_by_call(void *to, const uint64_t from[WORDS], unsigned int number)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	off_t at = (off_t)(number * PAGE);

	pthread_once(&once, make_file);
	if (pwrite(file, from, PAGE, at) != PAGE)
		wrong(NULL, 0, "pwrite: %s", strerrorname_np(errno));
	/* Uses syscall(), because sanitizers look at the memory that pread() writes to. */
	return syscall(SYS_pread64, file, to, PAGE, at) == (long)PAGE ? 0 : SIGBUS;
}
