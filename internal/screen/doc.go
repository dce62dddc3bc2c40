// Package screen looks at a machine's screen and presses its keys, through QEMU's
// monitor.
//
// # Words
//
//	picture  what the screen shows, as pixels (Shot, PNG)
//	cell     the place of one character on a text screen
//	glyph    how a character is drawn: a byte for each line of eight dots
//	chord    keys that are held together, such as ctrl-alt-delete
//
// # How text is read
//
// The characters are recognised in the picture, so that what is read is what is to
// be seen, wherever the adapter was told to begin. The glyphs come from the machine
// itself: from its VGA firmware, which names the characters of code page 437, and
// from the adapter's memory, where a system may have put glyphs of its own. Their
// letters, digits and signs are ASCII in every font that is known; what is drawn
// beyond that by a font of a system's own may be named wrongly.
//
// The adapter's registers cannot be asked for without changing them, and its memory
// at 0xb8000 holds text that was there before a mode with pixels was set. So a
// screen counts as text where most of what is on it are glyphs. A console that a kernel
// draws with pixels in a font like the firmware's is text as well; where the two fonts
// differ there is U+FFFD: with Linux' own font for 0 f m v w x M T V W X. A guess by
// likeness was tried, and was wrong more often than right.
//
// # What is bounded
//
// QEMU may have been taken over by what runs in it: the size of the picture, what is
// read of memory, and the time of each answer are bounded. The picture is written to
// a file in memory, handed over by descriptor: QEMU needs no file system and waits
// for no reader, and what it writes counts as its own memory. What users get as PNG
// is encoded here and holds nothing else of QEMU's.
//
// # What it does not do
//
// It starts no QEMU: Display says what a command line must have. It keeps no
// session: Monitor may be another one after each command.
package screen
