# The loader for UEFI, an application. It reads the kernel and the initramfs from
# the partition that it was started from, straight to where they stay, leaves the
# firmware, and enters the kernel as the 64-bit boot protocol has it, on the
# firmware's page tables, which map memory to itself. The boot parameters, made
# beforehand, begin the section that follows the code; the manifest is after them.
# Symbols in capitals are layout.go's.
#
# rbx: that section, rbp: boot services, r12: this image's handle, r13: the system
# table, r14: where the kernel goes, rsi: the partition.
#
# Sources: UEFI 2.10, 2.3.4.2 (calling), 4.3, 4.4 (tables), 7.2, 7.4 (services),
# 9.1 (loaded image), 12.9 (graphics), 13.9 (block I/O); Linux,
# Documentation/arch/x86/boot.rst and zero-page.rst, include/linux/screen_info.h.

	.intel_syntax noprefix
	# Boot services.
	.set	ALLOCATE_PAGES, 40
	.set	GET_MEMORY_MAP, 56
	.set	HANDLE_PROTOCOL, 152
	.set	EXIT_BOOT_SERVICES, 232
	.set	LOCATE_PROTOCOL, 320
	# Kinds of memory.
	.set	LOADER_CODE, 1
	.set	LOADER_DATA, 2
	.set	LOAD_ERROR, 0x8000000000000001
	.set	MAP_SIZE, 0x20000

	# What is on the stack, above the room for a call's arguments.
	.set	map, 0x38
	.set	map_size, 0x40
	.set	map_key, 0x48
	.set	map_step, 0x50
	.set	map_version, 0x58
	.set	count, 0x60
	.set	frame, 0x68

	.code64
	.globl	_start
	.set	data, _start + EFI_DATA - EFI_CODE
_start:
	push	rbx
	push	rbp
	push	rsi
	push	rdi
	push	r12
	push	r13
	push	r14
	push	r15
	sub	rsp, frame
	mov	r12, rcx
	mov	r13, rdx
	mov	rbp, [rdx + 96]
	lea	rbx, data[rip]

	lea	r15, t_disk[rip]
	mov	rcx, r12
	lea	rdx, loaded_image[rip]
	call	handle
	mov	rcx, [rax + 24]		# its device
	lea	rdx, block_io[rip]
	call	handle
	mov	rsi, rax
	mov	rax, [rsi + 8]		# its medium
	cmp	dword ptr [rax + 12], 512
	jne	fail

	lea	r15, t_memory[rip]
	mov	edx, LOADER_CODE	# some firmware forbids running data
	mov	r8d, [rbx + D_MANIFEST + M_SPAN]
	add	r8, ALIGN - 4096	# for what it is moved by
	call	allocate
	add	rax, ALIGN - 1
	and	rax, -ALIGN
	mov	r14, rax
	mov	edx, LOADER_DATA
	mov	r8d, [rbx + D_MANIFEST + M_INITRD_SIZE]
	add	r8, 512			# read in whole sectors; and never nothing
	call	allocate
	mov	[rbx + P_INITRD], eax
	mov	edx, LOADER_DATA
	mov	r8d, MAP_SIZE
	call	allocate
	mov	[rsp + map], rax

	lea	r15, t_disk[rip]
	lea	rdi, [rbx + D_MANIFEST + M_ROWS]
	mov	eax, [rbx + D_MANIFEST + M_COUNT]
	mov	[rsp + count], rax
1:	sub	qword ptr [rsp + count], 1
	jc	2f
	mov	r8d, [rdi]
	mov	r9d, [rdi + 4]
	mov	eax, [rdi + 8]
	add	rax, r14
	add	rdi, ROW
	call	row
	jmp	1b
2:	mov	r9d, [rbx + D_MANIFEST + M_INITRD_SIZE]
	add	r9, 511
	shr	r9, 9
	jz	3f
	mov	r8d, [rbx + D_MANIFEST + M_INITRD]
	mov	eax, [rbx + P_INITRD]
	call	row
3:	call	screen

	# The map must be the latest when the firmware is left, and asking for it may
	# be what changed it.
	mov	edi, 8
4:	mov	qword ptr [rsp + map_size], MAP_SIZE
	lea	rcx, [rsp + map_size]
	mov	rdx, [rsp + map]
	lea	r8, [rsp + map_key]
	lea	r9, [rsp + map_step]
	lea	rax, [rsp + map_version]
	mov	[rsp + 0x20], rax
	call	[rbp + GET_MEMORY_MAP]
	test	rax, rax
	jnz	5f
	mov	rcx, r12
	mov	rdx, [rsp + map_key]
	call	[rbp + EXIT_BOOT_SERVICES]
	test	rax, rax
	jz	6f
5:	dec	edi
	jnz	4b
7:	hlt				# by now the firmware may print nothing
	jmp	7b

6:	cli
	cld
	mov	dword ptr [rbx + P_EFI], 0x34364c45	# "EL64"
	mov	[rbx + P_EFI + 4], r13d
	shr	r13, 32
	mov	[rbx + P_EFI + 24], r13d
	mov	eax, [rsp + map_step]
	mov	[rbx + P_EFI + 8], eax
	mov	eax, [rsp + map_version]
	mov	[rbx + P_EFI + 12], eax
	mov	rax, [rsp + map]
	mov	[rbx + P_EFI + 16], eax
	mov	eax, [rsp + map_size]
	mov	[rbx + P_EFI + 20], eax
	call	memory
	lea	rax, [rbx + D_MANIFEST + M_COMMAND]
	mov	[rbx + P_COMMAND], eax
	shr	rax, 32
	mov	[rbx + P_COMMAND_HIGH], eax
	mov	eax, [rbx + D_MANIFEST + M_ENTRY]
	add	rax, r14
	mov	rsi, rbx
	jmp	rax

# fail says what is at r15 and returns to the firmware, which goes on with what
# else there is to boot.
fail:
	mov	rcx, [r13 + 64]		# console out
	test	rcx, rcx
	jz	1f
	mov	rdx, r15
	call	[rcx + 8]
1:	movabs	rax, LOAD_ERROR
	add	rsp, frame
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	rdi
	pop	rsi
	pop	rbp
	pop	rbx
	ret

# A failure below is reached with one return address on the stack.
failed:
	add	rsp, 0x28 + 8
	jmp	fail

# handle returns the interface rdx of the handle rcx.
handle:
	sub	rsp, 0x28
	lea	r8, [rsp + 0x20]
	call	[rbp + HANDLE_PROTOCOL]
	test	rax, rax
	jnz	failed
	mov	rax, [rsp + 0x20]
	add	rsp, 0x28
	ret

# allocate returns r8 bytes of memory of the kind edx, below 4 GiB, in pages.
allocate:
	sub	rsp, 0x28
	add	r8, 4095
	shr	r8, 12
	mov	ecx, 1			# at most at
	mov	eax, 0xffffffff
	mov	[rsp + 0x20], rax
	lea	r9, [rsp + 0x20]
	call	[rbp + ALLOCATE_PAGES]
	test	rax, rax
	jnz	failed
	mov	rax, [rsp + 0x20]
	add	rsp, 0x28
	ret

# row brings r9 sectors from r8, counted from the partition's begin, to rax; or
# zeros where r8 is 0.
row:
	sub	rsp, 0x28
	shl	r9, 9
	test	r8, r8
	jnz	1f
	mov	rdx, rdi
	mov	rdi, rax
	mov	rcx, r9
	shr	rcx, 3
	xor	eax, eax
	rep stosq
	mov	rdi, rdx
	jmp	2f
1:	mov	[rsp + 0x20], rax
	mov	rcx, rsi
	mov	rax, [rsi + 8]
	mov	edx, [rax]		# the medium's number
	call	[rsi + 24]		# read blocks
	test	rax, rax
	jnz	failed
2:	add	rsp, 0x28
	ret

# screen tells the kernel about the firmware's screen, where it has one whose
# picture is in memory.
screen:
	sub	rsp, 0x28
	lea	rcx, graphics_output[rip]
	xor	edx, edx
	lea	r8, [rsp + 0x20]
	call	[rbp + LOCATE_PROTOCOL]
	test	rax, rax
	jnz	9f
	mov	rax, [rsp + 0x20]
	mov	rax, [rax + 24]		# its mode
	mov	rcx, [rax + 8]
	mov	edx, [rcx + 12]		# 0: red first, 1: blue first
	cmp	edx, 1
	ja	9f
	shl	edx, 4
	mov	[rbx + P_RED + 1], dl	# each colour: how many bits, from which
	xor	dl, 16
	mov	[rbx + P_BLUE + 1], dl
	mov	byte ptr [rbx + P_RED], 8
	mov	word ptr [rbx + P_GREEN], 0x0808
	mov	byte ptr [rbx + P_BLUE], 8
	mov	word ptr [rbx + P_SPARE], 0x1808
	mov	edx, [rcx + 4]
	mov	[rbx + P_WIDTH], dx
	mov	edx, [rcx + 8]
	mov	[rbx + P_HEIGHT], dx
	mov	word ptr [rbx + P_DEPTH], 32
	mov	edx, [rcx + 32]
	shl	edx, 2
	mov	[rbx + P_LINE], dx
	mov	rdx, [rax + 24]
	mov	[rbx + P_PICTURE], edx
	shr	rdx, 32
	mov	[rbx + P_PICTURE_HIGH], edx
	jz	1f
	mov	dword ptr [rbx + P_ABILITIES], 2	# the address has 64 bits
1:	mov	edx, [rax + 32]
	mov	[rbx + P_PICTURE_SIZE], edx
	mov	byte ptr [rbx + P_VGA], 0x70	# as UEFI has it
9:	add	rsp, 0x28
	ret

# memory turns the firmware's map into the one of the boot parameters. What
# follows one another is one entry; past E820_MOST the rest is left out, which
# only leaves memory unused. Its caller's locals are 8 bytes further up here.
memory:
	mov	rsi, [rsp + 8 + map]
	mov	r8, [rsp + 8 + map_size]
	add	r8, rsi
	lea	rdi, [rbx + P_E820 - 20]
	xor	ecx, ecx
	lea	r9, kinds[rip]
1:	lea	rax, [rsi + 40]		# the least that a descriptor has
	cmp	rax, r8
	ja	9f
	mov	edx, 2			# reserved
	mov	eax, [rsi]
	cmp	eax, kinds_end - kinds
	jae	2f
	movzx	edx, byte ptr [r9 + rax]
2:	mov	rax, [rsi + 8]
	mov	r10, [rsi + 24]
	shl	r10, 12
	add	rsi, [rsp + 8 + map_step]
	test	ecx, ecx
	jz	3f
	cmp	edx, [rdi + 16]
	jne	3f
	mov	r11, [rdi]
	add	r11, [rdi + 8]
	cmp	r11, rax
	jne	3f
	add	[rdi + 8], r10
	jmp	1b
3:	cmp	ecx, E820_MOST
	jae	9f
	inc	ecx
	add	rdi, 20
	mov	[rdi], rax
	mov	[rdi + 8], r10
	mov	[rdi + 16], edx
	jmp	1b
9:	mov	[rbx + P_E820_ENTRIES], cl
	ret

# What the kernel takes UEFI's kinds of memory for. Source: Linux,
# drivers/firmware/efi/libstub/x86-stub.c, setup_e820.
kinds:	.byte	2, 1, 1, 1, 1, 2, 2, 1, 5, 3, 4, 2, 2, 2, 7
kinds_end:

	.balign	8
loaded_image:
	.long	0x5b1b31a1
	.word	0x9562, 0x11d2
	.byte	0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
block_io:
	.long	0x964e5b21
	.word	0x6459, 0x11d2
	.byte	0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
graphics_output:
	.long	0x9042a9de
	.word	0x23dc, 0x4a38
	.byte	0x96, 0xfb, 0x7a, 0xde, 0xd0, 0x80, 0x51, 0x6a

t_disk:	.string16 "strata: the boot disk cannot be read\r\n"
t_memory:
	.string16 "strata: the machine has not enough memory below 4 GiB for the kernel and its initramfs\r\n"
