package bootdisk

import _ "embed" // the machine code

// The machine code. Sources: code/*.S.
var (
	//go:embed code/mbr.bin
	mbrCode []byte
	//go:embed code/bios.bin
	biosCode []byte
	//go:embed code/efi.bin
	efiCode []byte
)

const (
	sector = 512
	page   = 4096

	// Where things are on the disk, in sectors.
	codeLBA      = 34
	codeSectors  = 8
	dataSectors  = 16 // parameters and manifest
	partitionLBA = 2048

	// Where a BIOS' loader and its data are in memory.
	codeAt   = 0x8000
	paramsAt = codeAt + codeSectors*sector
	tablesAt = paramsAt + dataSectors*sector
	bufferAt = 0x20000

	// Where the sections of UEFI's are, relative to the image.
	efiCodeAt = 0x1000
	efiDataAt = 0x2000

	// kernelAlign is what a kernel's begin is moved by multiples of.
	// Source: Linux, arch/x86/kernel/head64.c, __startup_64 (PMD_MASK).
	kernelAlign = 2 << 20

	manifestMagic = 0x74727473 // "strt"
)

// The parameters. Source: Linux, arch/x86/include/uapi/asm/bootparam.h and
// include/uapi/linux/screen_info.h; Documentation/arch/x86/boot.rst.
const (
	pX           = 0x00
	pPage        = 0x04
	pMode        = 0x06
	pColumns     = 0x07
	pLines       = 0x0e
	pVGA         = 0x0f
	pPoints      = 0x10
	pWidth       = 0x12
	pHeight      = 0x14
	pDepth       = 0x16
	pPicture     = 0x18
	pPictureSize = 0x1c
	pLine        = 0x24
	pRed         = 0x26
	pGreen       = 0x28
	pBlue        = 0x2a
	pSpare       = 0x2c
	pAbilities   = 0x36
	pPictureHigh = 0x3a
	pCommandHigh = 0xc8
	pEFI         = 0x1c0
	pE820Entries = 0x1e8
	pBootFlag    = 0x1fe
	pHeader      = 0x202
	pVersion     = 0x206
	pLoader      = 0x210
	pLoadFlags   = 0x211
	pInitrd      = 0x218
	pInitrdSize  = 0x21c
	pCommand     = 0x228
	pAlignment   = 0x230
	pRelocatable = 0x234
	pCommandSize = 0x238
	pE820        = 0x2d0

	e820Most = 128

	bootFlag      = 0xaa55
	headerMagic   = "HdrS"
	bootProtocol  = 0x020c // 2.12, with the 64-bit entry
	unknownLoader = 0xff   // one without an assigned number
	loadedHigh    = 1
)

// The manifest, which follows the parameters.
const (
	mMagic      = 0x00
	mBase       = 0x04 // where the partition begins, for who reads the whole disk
	mAddress    = 0x08 // where the kernel wants to be
	mSpan       = 0x0c // bytes, whole pages
	mEntry      = 0x10 // from the span's begin
	mInitrd     = 0x14 // its first sector, from the partition's begin
	mInitrdSize = 0x18 // bytes
	mCount      = 0x1c // of rows
	mRows       = 0x40
	mCommand    = 0x800

	rowSize  = 12 // first sector (0: zeros), sectors, bytes from the span's begin
	mostRows = (mCommand - mRows) / rowSize

	// MaxCommandLine is the longest command line. Unit: bytes. Source: Linux,
	// arch/x86/include/asm/setup.h, COMMAND_LINE_SIZE, with the zero at its end.
	MaxCommandLine = 2047
)

// symbols are the constants under the names that the machine code has for them.
var symbols = map[string]int{
	"CODE": codeAt, "CODE_LBA": codeLBA, "CODE_SECTORS": codeSectors, "DATA_SECTORS": dataSectors,
	"PARAMS": paramsAt, "MANIFEST": paramsAt + page, "TABLES": tablesAt, "BUFFER": bufferAt,
	"EFI_CODE": efiCodeAt, "EFI_DATA": efiDataAt, "D_MANIFEST": page, "ALIGN": kernelAlign, "MAGIC": manifestMagic,
	"P_X": pX, "P_PAGE": pPage, "P_MODE": pMode, "P_COLUMNS": pColumns, "P_LINES": pLines, "P_VGA": pVGA, "P_POINTS": pPoints,
	"P_WIDTH": pWidth, "P_HEIGHT": pHeight, "P_DEPTH": pDepth, "P_PICTURE": pPicture, "P_PICTURE_SIZE": pPictureSize, "P_LINE": pLine,
	"P_RED": pRed, "P_GREEN": pGreen, "P_BLUE": pBlue, "P_SPARE": pSpare, "P_ABILITIES": pAbilities, "P_PICTURE_HIGH": pPictureHigh,
	"P_COMMAND": pCommand, "P_COMMAND_HIGH": pCommandHigh, "P_EFI": pEFI, "P_E820": pE820, "P_E820_ENTRIES": pE820Entries, "P_INITRD": pInitrd,
	"E820_MOST": e820Most,
	"M_MAGIC":   mMagic, "M_BASE": mBase, "M_ADDRESS": mAddress, "M_SPAN": mSpan, "M_ENTRY": mEntry, "M_INITRD": mInitrd,
	"M_INITRD_SIZE": mInitrdSize, "M_COUNT": mCount, "M_ROWS": mRows, "M_COMMAND": mCommand, "ROW": rowSize,
}
