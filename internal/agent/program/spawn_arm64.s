#include "textflag.h"

// func cloneShared(args *cloneArgs, size uintptr, img *Image, child uintptr) (pid, errno uintptr)
//
// The child begins on the stack that args name, so nothing of the parent's is used
// there; it never returns. It is called without a wrapper, which could look at
// the runtime's state of the thread.
TEXT ·cloneShared(SB),NOSPLIT,$0-48
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	img+16(FP), R20
	MOVD	child+24(FP), R21
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	parent
	NEG	R0, R0
	MOVD	ZR, pid+32(FP)
	MOVD	R0, errno+40(FP)
	RET
parent:
	MOVD	R0, pid+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
child:
	MOVD	ZR, R29
	MOVD	R20, R0 // where Go's own convention wants it, see abi-internal
	SUB	$64, RSP // where a callee may put its arguments
	CALL	(R21)
	BRK	$0 // not reached
