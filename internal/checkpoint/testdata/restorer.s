# The first instructions of an image: does the system calls of a list, one after the other.
# It has no data and uses no stack. What is a call and what its fields mean is in list_amd64.go.
#
#   r12  the call that is next
#   r13  where the kernel has put this process's vdso
	.globl _start
	.text
_start:
	mov	(%rsp), %rcx			# argc, argv, 0, environment, 0, auxiliary vector
	lea	16(%rsp,%rcx,8), %rsi
	cld
1:	lodsq
	test	%rax, %rax
	jnz	1b
2:	lodsq
	mov	%rax, %rdx
	lodsq
	mov	%rax, %r13
	cmp	$33, %rdx			# AT_SYSINFO_EHDR
	je	3f
	test	%rdx, %rdx
	jnz	2b
	xor	%r13d, %r13d
3:	lea	list(%rip), %r12
next:
	mov	56(%r12), %r14			# how
	mov	8(%r12), %rdi
	mov	16(%r12), %rsi
	mov	24(%r12), %rdx
	mov	32(%r12), %r10
	mov	40(%r12), %r8
	mov	48(%r12), %r9
	test	$1, %r14d			# near the vdso
	jz	4f
	add	%r13, %rdi
4:	test	$2, %r14d			# with this stack
	jz	5f
	mov	%rdi, %rsp
5:	mov	(%r12), %rax
	syscall
	test	$4, %r14d			# makes a thread
	jz	6f
	test	%rax, %rax
	jnz	6f
	mov	48(%r12), %r12			# it has a list of its own
	jmp	next
6:	test	$8, %r14d			# may fail
	jnz	7f
	cmp	$-4095, %rax
	jae	bad
7:	mov	%r14, %rdx
	shr	$32, %rdx			# what it is to return, and one
	jz	8f
	dec	%rdx
	cmp	%rax, %rdx
	jne	bad
8:	add	$64, %r12
	jmp	next
bad:
	mov	$1, %eax			# write
	mov	$2, %edi
	lea	words(%rip), %rsi
	mov	$(end-words), %edx
	syscall
	mov	$231, %eax			# exit_group
	mov	$121, %edi
	syscall
	hlt
words:	.ascii	"a process cannot go on from its image\n"
end:	.balign	64
list:
