# The first sector, which a BIOS loads to 0x7c00 and enters in real mode with the
# drive in dl. It reads what follows the partition table to CODE and goes there,
# the drive still in dl. Symbols in capitals are layout.go's.

	.intel_syntax noprefix
	.code16
	.globl	_start
_start:
	cli
	cld
	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	sp, 0x7c00
	sti
	ljmp	0, offset here		# some BIOSes enter at 07c0:0000
here:
	mov	drive, dl
	mov	ah, 0x41		# are there extensions of INT 13h?
	mov	bx, 0x55aa
	int	0x13
	jc	fail
	cmp	bx, 0xaa55
	jne	fail
	test	cl, 1			# the packet calls
	jz	fail
	mov	ah, 0x42		# extended read
	mov	dl, drive
	mov	si, offset packet
	int	0x13
	jc	fail
	mov	dl, drive
	ljmp	0, CODE

fail:
	mov	si, offset text
1:	lodsb
	test	al, al
	jz	2f
	mov	ah, 0x0e
	mov	bx, 7
	int	0x10
	jmp	1b
2:	hlt
	jmp	2b

drive:	.byte	0
text:	.asciz	"strata: the BIOS cannot read the boot disk\r\n"

	.balign	4
packet:	.byte	16, 0
	.word	CODE_SECTORS + DATA_SECTORS
	.word	CODE, 0			# offset, segment
	.long	CODE_LBA, 0
