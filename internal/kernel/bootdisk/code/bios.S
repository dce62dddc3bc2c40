# The loader for a BIOS, entered in real mode at CODE with the drive in dl. It
# reads the kernel and the initramfs by the extensions of INT 13h, which reach no
# memory above 1 MiB, so each piece goes through a buffer below; then it enters
# the kernel as the 64-bit boot protocol has it. The kernel's boot parameters,
# made beforehand, are at PARAMS, and the manifest is at MANIFEST; symbols in
# capitals are layout.go's.
#
# Sources: Linux, Documentation/arch/x86/boot.rst and zero-page.rst; Enhanced Disk
# Drive Specification 3.0, 8.2; ACPI 6.5, 15.1 (INT 15h, E820).

	.intel_syntax noprefix
	.set	SMAP, 0x534d4150
	.set	COM1, 0x3f8
	.set	E820, PARAMS + P_E820
	.set	MOST, 127		# sectors at once, the most that any BIOS takes

	.code16
	.globl	_start
_start:
	mov	drive, dl
	mov	si, offset t_damaged
	cmp	dword ptr [MANIFEST + M_MAGIC], MAGIC
	jne	fail
	call	processor
	call	a20
	call	memory
	call	place
	call	screen
	call	read
	jmp	enter

# fail says what is at si, on the screen and the first serial line, and stays.
fail:
	lodsb
	test	al, al
	jz	3f
	mov	ah, 0x0e
	mov	bx, 7
	int	0x10
	mov	ah, al
	mov	dx, COM1 + 5
	mov	cx, 0x1000		# a line that is absent, or stuck, is not waited for
1:	in	al, dx
	test	al, 0x20
	jnz	2f
	loop	1b
2:	mov	dx, COM1
	mov	al, ah
	out	dx, al
	jmp	fail
3:	hlt
	jmp	3b

# processor refuses one without long mode.
processor:
	mov	si, offset t_processor
	mov	eax, 0x80000000
	cpuid
	cmp	eax, 0x80000001
	jb	fail
	mov	eax, 0x80000001
	cpuid
	bt	edx, 29
	jnc	fail
	ret

# a20 opens what is above 1 MiB, by the BIOS and by the fast gate.
a20:
	mov	ax, 0x2401
	int	0x15
	in	al, 0x92
	test	al, 2
	jnz	1f
	or	al, 2
	and	al, 0xfe		# bit 0 resets
	out	0x92, al
1:	ret

# memory puts the BIOS' map into the boot parameters.
memory:
	xor	ebx, ebx
	xor	bp, bp
	mov	di, offset E820
1:	mov	eax, 0xe820
	mov	edx, SMAP
	mov	ecx, 20
	int	0x15
	jc	2f
	cmp	eax, SMAP
	jne	2f
	inc	bp
	add	di, 20
	cmp	bp, E820_MOST
	jae	2f
	test	ebx, ebx
	jnz	1b
2:	mov	ax, bp
	mov	[PARAMS + P_E820_ENTRIES], al
	ret

# place finds a range of memory for kernel and initramfs: the kernel where it
# wants to be or at the range's begin, the initramfs at its end.
place:
	mov	cl, [PARAMS + P_E820_ENTRIES]
	mov	di, offset E820 - 20
1:	mov	si, offset t_memory
	sub	cl, 1
	jc	fail
	add	di, 20
	cmp	dword ptr [di + 16], 1	# usable
	jne	1b
	cmp	dword ptr [di + 4], 0	# begins below 4 GiB
	jne	1b
	mov	eax, [di]
	mov	edx, eax		# edx: its end, cut at 4 GiB
	add	edx, [di + 8]
	mov	ebx, 0
	adc	ebx, [di + 12]
	jz	2f
	mov	edx, 0xfffff000
2:	cmp	eax, [MANIFEST + M_ADDRESS]
	jae	3f
	mov	eax, [MANIFEST + M_ADDRESS]
3:	add	eax, ALIGN - 1
	jc	1b
	and	eax, -ALIGN
	sub	edx, [MANIFEST + M_INITRD_SIZE]
	jc	1b
	and	edx, -4096
	mov	ebx, edx		# ebx: what the kernel may have
	sub	ebx, eax
	jbe	1b
	cmp	ebx, [MANIFEST + M_SPAN]
	jb	1b
	mov	kernel, eax
	mov	[PARAMS + P_INITRD], edx
	ret

# screen tells the kernel about a VGA in text mode, as its own setup code would.
screen:
	mov	ax, 0x1a00		# display combination: only a VGA answers
	int	0x10
	cmp	al, 0x1a
	jne	1f
	mov	ah, 0x0f		# al: mode, ah: columns, bh: page
	int	0x10
	and	al, 0x7f
	cmp	al, 3
	ja	1f
	mov	[PARAMS + P_MODE], al
	mov	[PARAMS + P_COLUMNS], ah
	mov	[PARAMS + P_PAGE], bh
	mov	ah, 3			# dl, dh: where the cursor is
	int	0x10
	mov	[PARAMS + P_X], dx
	mov	al, [0x484]		# the BIOS' data area: rows but one, height of letters
	inc	al
	mov	[PARAMS + P_LINES], al
	mov	ax, [0x485]
	mov	[PARAMS + P_POINTS], ax
	mov	byte ptr [PARAMS + P_VGA], 1
1:	ret

# read carries out the manifest's rows, and reads the initramfs.
read:
	mov	bp, [MANIFEST + M_COUNT]
	mov	si, MANIFEST + M_ROWS
1:	test	bp, bp
	jz	2f
	mov	eax, [si]
	mov	ecx, [si + 4]
	mov	edi, [si + 8]
	add	edi, kernel
	call	row
	add	si, ROW
	dec	bp
	jmp	1b
2:	mov	ecx, [MANIFEST + M_INITRD_SIZE]
	test	ecx, ecx
	jz	3f
	add	ecx, 511
	shr	ecx, 9
	mov	eax, [MANIFEST + M_INITRD]
	mov	edi, [PARAMS + P_INITRD]
	call	row
3:	ret

# row brings ecx sectors from eax, counted from the partition's begin, to edi; or
# zeros where eax is 0.
row:
	test	eax, eax
	jnz	1f
	call	reach
	shl	ecx, 7
	addr32 rep stosd
	sti
	ret
1:	add	eax, [MANIFEST + M_BASE]
2:	mov	edx, ecx
	cmp	edx, MOST
	jbe	3f
	mov	edx, MOST
3:	mov	packet_count, dx
	mov	packet_lba, eax
	pushad
	mov	ah, 0x42
	mov	dl, drive
	mov	si, offset packet
	int	0x13
	jc	unread
	popad
	pushad
	call	reach
	mov	ecx, edx
	shl	ecx, 7
	mov	esi, BUFFER
	addr32 rep movsd
	sti
	popad
	add	eax, edx
	sub	ecx, edx
	shl	edx, 9
	add	edi, edx
	test	ecx, ecx
	jnz	2b
	ret
unread:
	mov	si, offset t_unread
	jmp	fail

# reach lets ds and es reach 4 GiB in real mode, with interrupts off: a BIOS that
# goes into protected mode by itself takes that away at each call. ebx is spoilt.
reach:
	cli
	lgdt	gdtr
	mov	ebx, cr0
	push	ax
	or	bl, 1
	mov	cr0, ebx
	jmp	1f
1:	mov	ax, 0x18
	mov	ds, ax
	mov	es, ax
	and	bl, 0xfe
	mov	cr0, ebx
	jmp	2f
2:	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	pop	ax
	ret

# enter makes tables that map the first 4 GiB to themselves, in pages of 2 MiB,
# and goes into long mode and to the kernel.
enter:
	cli
	xor	eax, eax
	mov	di, TABLES
	mov	cx, 6 * 4096 / 4
	rep stosd
	mov	dword ptr [TABLES], TABLES + 0x1003
	mov	eax, TABLES + 0x2003	# present, writable
	mov	di, TABLES + 0x1000
1:	mov	[di], eax
	add	di, 8
	add	eax, 0x1000
	cmp	di, TABLES + 0x1020
	jb	1b
	mov	eax, 0x83		# and a large page
	mov	di, TABLES + 0x2000
	mov	cx, 4 * 512
2:	mov	[di], eax
	add	di, 8
	add	eax, 0x200000
	loop	2b
	mov	eax, cr4
	or	eax, 0x20		# PAE
	mov	cr4, eax
	mov	eax, TABLES
	mov	cr3, eax
	mov	ecx, 0xc0000080		# EFER
	rdmsr
	or	eax, 0x100		# LME
	wrmsr
	lgdt	gdtr
	mov	eax, cr0
	or	eax, 0x80000001		# PG, PE
	mov	cr0, eax
	ljmp	0x10, offset long

	.code64
long:
	mov	ax, 0x18
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	esp, 0x7c00
	xor	eax, eax
	mov	fs, ax
	mov	gs, ax
	mov	eax, MANIFEST + M_COMMAND
	mov	[PARAMS + P_COMMAND], eax
	mov	eax, dword ptr [kernel]
	add	eax, [MANIFEST + M_ENTRY]
	mov	esi, PARAMS
	xor	ebp, ebp
	xor	edi, edi
	xor	ebx, ebx
	jmp	rax

drive:	.byte	0
	.balign	8
kernel:	.long	0
packet:	.byte	16, 0
packet_count:
	.word	0
	.word	0, BUFFER >> 4		# offset, segment
packet_lba:
	.long	0, 0

	.balign	8
# The selectors that the boot protocol names: 0x10 code, 0x18 data.
gdt:	.quad	0, 0
	.quad	0x00af9b000000ffff	# 64-bit code
	.quad	0x00cf93000000ffff	# data, 4 GiB
gdtr:	.word	gdtr - gdt - 1
	.long	gdt

t_damaged:
	.asciz	"strata: the boot disk is damaged\r\n"
t_processor:
	.asciz	"strata: the processor has no 64-bit mode\r\n"
t_memory:
	.asciz	"strata: the machine has not enough memory below 4 GiB for the kernel and its initramfs\r\n"
t_unread:
	.asciz	"strata: the boot disk cannot be read\r\n"
