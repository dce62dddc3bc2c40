#include "textflag.h"

// func cloneShared(args *cloneArgs, size uintptr, img *Image, child uintptr) (pid, errno uintptr)
//
// The child begins on the stack that args name, so nothing of the parent's is used
// there; it never returns. It is called without a wrapper, which could look at
// the runtime's state of the thread.
TEXT ·cloneShared(SB),NOSPLIT,$0-48
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	img+16(FP), R12
	MOVQ	child+24(FP), R13
	MOVQ	$435, AX // clone3
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	parent
	NEGQ	AX
	MOVQ	$0, pid+32(FP)
	MOVQ	AX, errno+40(FP)
	RET
parent:
	MOVQ	AX, pid+32(FP)
	MOVQ	$0, errno+40(FP)
	RET
child:
	XORQ	BP, BP
	XORPS	X15, X15 // the registers that Go's own convention wants, see abi-internal
	MOVQ	R12, AX
	SUBQ	$64, SP // where a callee may put its arguments
	CALL	R13
	INT	$3 // not reached
