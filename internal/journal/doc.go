// Package journal keeps records that must survive a power cut before anybody is
// told that they were accepted: the durable queue between the way in and the
// roll that turns readings into segments of chunks.
//
// It promises:
//   - done(pos, nil) is called only after the record is on stable storage, and
//     from then on the record is read exactly once, at pos, in order of Append,
//     until Trim takes it, whatever happens to the process or the power;
//   - what is read is bit for bit what was appended: bytes that are torn, stale
//     or damaged are never handed out as a record;
//   - a record whose Append failed, or had no answer when the power went, is
//     there whole or not at all;
//   - after a failed write or sync nothing is acknowledged any more, and Failed
//     tells the process to exit. A sync is never tried a second time: the kernel
//     may have dropped the pages and would report success.
//
// It does not know what a record means, does not encrypt, and does not guard the
// folder against a second process: who owns the data folder locks it.
//
// File is the driver on segment files. Its format, and why it survives each kind
// of crash, is written in docs/format/journal.md. Other drivers pass the suite of
// package journaltest.
package journal
