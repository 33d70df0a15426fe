/* SPDX-License-Identifier: 0BSD */
/*
 * The guest: 32-bit flat protected mode, no paging, no interrupts, no stack. Each CPU walks its own
 * list of pages:
 *
 *	read all (cold: the first touches), read all (warm: what a touch costs by itself);
 *	then rounds of: write to each page, read all; until the host says stop;
 *	then, if the host asks for it, read every word of every page.
 *
 * Only simple instructions: where the host lacks hardware virtualisation KVM emulates each of them.
 * The code is copied to GUEST_CODE as it is, so it has no absolute addresses; the host puts the
 * address of the CPU's struct walk_box in EBX.
 */
#include "guest.h"

	.section .rodata
	.globl guest_code, guest_size
	.code32

/*
 * Read a pass's pages. ESI is the visit, EBP the page, EDI the sum of the words and ESP the sum of
 * that sum after each page, which makes the result depend on the order too.
 */
.macro read_pass n
	movl	$\n, BOX_PHASE(%ebx)
	movl	BOX_PASS(\n) + PASS_FIRST(%ebx), %esi
	movl	$0, %edi
	movl	$0, %esp
1:	movl	VISIT_PAGE(%esi), %ebp
	rdtsc
	shrdl	$GUEST_TICK_SHIFT, %edx, %eax
	movl	%eax, %ecx
	addl	(%ebp), %edi
	rdtsc
	shrdl	$GUEST_TICK_SHIFT, %edx, %eax
	subl	%ecx, %eax
	movl	%eax, VISIT_TICKS(%esi)
	.set	offset, GUEST_STRIDE
	.rept	GUEST_WORDS - 1
	addl	offset(%ebp), %edi
	.set	offset, offset + GUEST_STRIDE
	.endr
	addl	%edi, %esp
	addl	$VISIT_SIZE, %esi
	cmpl	BOX_PASS(\n) + PASS_END(%ebx), %esi
	jne	1b
	movl	%edi, BOX_PASS(\n) + PASS_WORDS(%ebx)
	movl	%esp, BOX_PASS(\n) + PASS_ORDER(%ebx)
.endm

guest_code:
	read_pass PASS_COLD
	read_pass PASS_WARM

round:
	movl	$PHASE_WRITE, BOX_PHASE(%ebx)
	movl	BOX_PASS(PASS_LAST) + PASS_FIRST(%ebx), %esi
1:	movl	VISIT_PAGE(%esi), %ebp
	addl	$GUEST_ADDEND, GUEST_WRITTEN(%ebp)
	addl	$VISIT_SIZE, %esi
	cmpl	BOX_PASS(PASS_LAST) + PASS_END(%ebx), %esi
	jne	1b
	addl	$1, BOX_ROUNDS(%ebx)
	read_pass PASS_LAST
	cmpl	$0, BOX_STOP(%ebx)
	je	round

	cmpl	$0, BOX_ALL(%ebx)
	je	done
	movl	$PASS_ALL, BOX_PHASE(%ebx)
	movl	BOX_PASS(PASS_ALL) + PASS_FIRST(%ebx), %esi
	movl	$0, %edi
	movl	$0, %esp
1:	movl	VISIT_PAGE(%esi), %ebp
	movl	$1024, %ecx
2:	addl	(%ebp), %edi
	addl	%edi, %esp
	addl	$4, %ebp
	subl	$1, %ecx
	jne	2b
	addl	$VISIT_SIZE, %esi
	cmpl	BOX_PASS(PASS_ALL) + PASS_END(%ebx), %esi
	jne	1b
	movl	%edi, BOX_PASS(PASS_ALL) + PASS_WORDS(%ebx)
	movl	%esp, BOX_PASS(PASS_ALL) + PASS_ORDER(%ebx)

done:
	movl	$PHASE_DONE, BOX_PHASE(%ebx)
	outb	%al, $GUEST_DONE_PORT
halt:
	hlt
	jmp	halt
	.balign	4
guest_size:
	.long	guest_size - guest_code
	.section .note.GNU-stack, "", @progbits
