.globl _start
_start:
	mov $1, %eax		# write(1, text, 10)
	mov $1, %edi
	lea text(%rip), %rsi
	mov $10, %edx
	syscall
	mov $231, %eax		# exit_group(0)
	xor %edi, %edi
	syscall
text:	.ascii "rehearsed\n"
