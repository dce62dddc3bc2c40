// Package logfile is the format in which a keeper stores its program's output,
// its writer (the keeper) and its reader (the daemon).
//
// # Format
//
// A log is a folder with the files log (the newest), log.1, log.2 … Each starts
// with a head of 16 bytes, the word STRALOG1 and the file's number, which grows
// by one with each file ever made and puts the files in order whatever they are
// called at the moment. Records follow, all numbers little endian:
//
//	2 bytes  0xA55A
//	1 byte   stream
//	1 byte   0
//	4 bytes  length of the data, at most MaxData
//	8 bytes  time, unix nanoseconds
//	n bytes  data, exactly as it was written
//	4 bytes  CRC-32C of all that stands before
//	4 bytes  length of the whole record, so that a writer can check the last one
//
// # Invariants
//
//   - No file is longer than Size, and there are at most Files of them.
//   - A record is written by one system call. What a crash left half-written at a
//     file's end is never continued: the writer starts the next file, and the
//     reader passes over what is no whole record.
//   - Output that could not be stored is counted, and a record of stream Lost
//     says how much it was as soon as storing works again.
//
// It does not compress, does not know lines, and never syncs to the disk: a log
// outlives every process but not a power cut.
package logfile
