# A system in one sector: it counts its starts on the sector after it, says so on screen
# and serial line, and repeats each key on both. To the BIOS it is a disk, or a CD whose
# first sectors it has loaded.
	.code16
	.globl _start
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	cld
	movb	%dl, drive
	movw	$0x0201, %ax		# read one sector
	call	sector
	incb	0x7e00
	movb	0x7e00, %al
	movb	%al, count
	movw	$0x0301, %ax		# write it; a CD's is not, and nobody minds
	call	sector
	movw	$words, %si
1:	lodsb
	testb	%al, %al
	jz	2f
	call	put
	jmp	1b
2:	xorb	%ah, %ah		# wait for a key. Source: int 16h, function 0
	int	$0x16
	call	put
	cmpb	$'\r', %al
	jne	2b
	movb	$'\n', %al
	call	put
	jmp	2b

# The second sector of the drive, by the function that is in %ah. Source: int 13h
sector:
	movw	$0x7e00, %bx
	movw	$0x0002, %cx
	xorb	%dh, %dh
	movb	drive, %dl
	int	$0x13
	ret

# A letter, to the screen and to the first serial port.
put:
	pushw	%ax
	movb	$0x0e, %ah		# Source: int 10h, function 0eh
	movw	$0x0007, %bx
	int	$0x10
	movw	$0x3fd, %dx
	movb	$255, %cl		# a port that is not there is not waited for
3:	inb	%dx, %al
	testb	$0x20, %al
	jnz	4f
	decb	%cl
	jnz	3b
4:	popw	%ax
	movw	$0x3f8, %dx
	outb	%al, %dx
	ret

drive:	.byte	0
	.org	0x1a0			# so that tests find the medium's name
words:	.ascii	"\r\nechoes from "
medium:	.ascii	"disk"
	.ascii	", start "
count:	.ascii	"0"
	.asciz	"\r\n"
	.org	0x1fe
	.word	0xaa55
