/* SPDX-License-Identifier: 0BSD */
/*
 * The guest that writes: 32-bit flat protected mode, no paging, no interrupts, no stack. Each CPU
 * goes round its schedule, a list of pages, and puts a record (writer_guest.h) into one page after
 * the other, until the host says stop.
 *
 * ESI is the place in the schedule, EDI the sequence number, EBP the page, ESP when the write
 * before had ended: a write takes from there to its own end, so that no time is left out in which
 * the host had paused the CPU. Only the time that it waited because it was told to is.
 *
 * As in guest.S only simple instructions, and no absolute addresses.
 */
#include "writer_guest.h"

	.section .rodata
	.globl writer_code, writer_size
	.code32

/* The time in ticks, in EAX; EDX is lost. */
.macro now
	rdtsc
	shrdl	$GUEST_TICK_SHIFT, %edx, %eax
.endm

writer_code:
	movl	BOX_FIRST(%ebx), %esi
	movl	BOX_SEQUENCE(%ebx), %edi
	now
	movl	%eax, %esp

next:
	testl	%edi, BOX_WAIT_MASK(%ebx)
	jnz	write
	outb	%al, $GUEST_WAIT_PORT
	now
	subl	BOX_LATE(%ebx), %eax
	movl	%eax, %esp

write:
	movl	(%esi), %ebp
	addl	$1, %edi
	movl	%ebp, %ecx
	shrl	$12, %ecx
	movl	%ecx, (%ebp)
	movl	%edi, RECORD_STRIDE(%ebp)
	imull	$RECORD_FACTOR, %edi, %eax
	addl	%ecx, %eax
	.set	offset, 2 * RECORD_STRIDE
	.rept	RECORD_WORDS - 2
	addl	$RECORD_ADDEND, %eax
	movl	%eax, offset(%ebp)
	.set	offset, offset + RECORD_STRIDE
	.endr
	movl	%edi, BOX_SEQUENCE(%ebx)

	now
	movl	%eax, %ecx
	subl	%esp, %ecx
	movl	%eax, %esp
	cmpl	BOX_SLOW(%ebx), %ecx
	jl	quick		/* signed: clocks of two processors may differ by a tick */
	movl	BOX_SLOW_WRITES(%ebx), %eax
	andl	$(LOG_WORDS - 1), %eax
	movl	BOX_LOG(%ebx), %edx
	movl	%ecx, (%edx, %eax, 4)
	addl	$1, BOX_SLOW_WRITES(%ebx)
quick:
	addl	$4, %esi
	cmpl	BOX_END(%ebx), %esi
	jne	more
	movl	BOX_FIRST(%ebx), %esi
more:
	cmpl	$0, BOX_WRITE_STOP(%ebx)
	je	next

	outb	%al, $GUEST_DONE_PORT
halt:
	hlt
	jmp	halt
	.balign	4
writer_size:
	.long	writer_size - writer_code
	.section .note.GNU-stack, "", @progbits
