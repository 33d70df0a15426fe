/* SPDX-License-Identifier: 0BSD */
/*
 * The guest with a balloon: 32-bit flat protected mode, no paging, no interrupts, no stack. Each CPU
 * goes round the pages that it has in use (balloon_guest.h): it looks at what the page holds, and
 * puts a new record into it. In between it gives up a unit of pages, or takes one back, where the
 * host wants it. Of pages that it takes back it expects zeroes.
 *
 * ESI is the entry of the page, EBP the page.
 *
 * As in guest.S only simple instructions, and no absolute addresses.
 */
#include "balloon_guest.h"

	.section .rodata
	.globl balloon_code, balloon_size
	.code32

balloon_code:
	movl	BOX_GIVEN(%ebx), %esi

next:
	movl	BOX_GIVEN(%ebx), %eax
	cmpl	BOX_TARGET(%ebx), %eax
	je	use
	jb	give

	/* Take a unit back, and go on there. */
	subl	BOX_UNIT(%ebx), %eax
	movl	%eax, BOX_GIVEN(%ebx)
	movl	%eax, %esi
	jmp	use

	/* What is given up holds zeroes when it comes back. */
give:
	movl	%eax, %edi
	addl	BOX_UNIT(%ebx), %eax
forget:
	movl	$0, PAGE_SUM(%edi)
	movl	$0, PAGE_WRITE(%edi)
	movl	$1, PAGE_BACK(%edi)
	addl	$PAGE_ENTRY, %edi
	cmpl	%eax, %edi
	jne	forget
	movl	%eax, BOX_GIVEN(%ebx)
	cmpl	%eax, %esi
	jae	behind
	movl	%eax, %esi
behind:
	testl	$BALLOON_BURST, %eax
	jnz	next

use:
	movl	PAGE_ADDRESS(%esi), %ebp
	movl	(%ebp), %eax
	.set	offset, RECORD_STRIDE
	.rept	RECORD_WORDS - 1
	addl	offset(%ebp), %eax
	.set	offset, offset + RECORD_STRIDE
	.endr
	cmpl	PAGE_SUM(%esi), %eax
	je	right
	addl	$1, BOX_WRONG(%ebx)
	movl	%eax, BOX_WRONG_SUM(%ebx)
	movl	%ebp, BOX_WRONG_PAGE(%ebx)

	/* A record, and the sum of it in EDX. */
right:
	movl	BOX_WRITES(%ebx), %edi
	addl	$1, %edi
	movl	%edi, PAGE_WRITE(%esi)
	movl	%ebp, %ecx
	shrl	$12, %ecx
	movl	%ecx, (%ebp)
	movl	%edi, RECORD_STRIDE(%ebp)
	imull	$RECORD_FACTOR, %edi, %eax
	addl	%ecx, %eax
	movl	%ecx, %edx
	addl	%edi, %edx
	.set	offset, 2 * RECORD_STRIDE
	.rept	RECORD_WORDS - 2
	addl	$RECORD_ADDEND, %eax
	movl	%eax, offset(%ebp)
	addl	%eax, %edx
	.set	offset, offset + RECORD_STRIDE
	.endr
	movl	%edx, PAGE_SUM(%esi)
	movl	%edi, BOX_WRITES(%ebx)

	addl	$PAGE_ENTRY, %esi
	cmpl	BOX_PAGES_END(%ebx), %esi
	jne	more
	movl	BOX_GIVEN(%ebx), %esi
	addl	$1, BOX_LAPS(%ebx)
more:
	cmpl	$0, BOX_HALT(%ebx)
	je	next

	outb	%al, $GUEST_DONE_PORT
halt:
	hlt
	jmp	halt
	.balign	4
balloon_size:
	.long	balloon_size - balloon_code
	.section .note.GNU-stack, "", @progbits
