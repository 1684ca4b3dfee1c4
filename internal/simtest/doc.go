// Package simtest puts a whole hub, its clients and its disk into a bubble of
// testing/synctest and lets seeds decide what happens to them: which readings are
// sent and how, when the power goes, which write fails and whether it was done all
// the same, when the disk is full, when the clock is set, what is erased in the
// middle of it. Two lives are played in which it happens at each step instead: one in
// which everything is done once, and one in which readings expire.
//
// Everything above the disk and the network is the real hub: journal, segments,
// keyring and root key over the disk's files, the catalog's SQLite over a VFS on
// the same disk, TLS 1.3 with client certificates, MQTT and HTTP. The disk is in
// memory and keeps apart what a program sees and what would be left after a power
// cut (Disk). The clock is the bubble's, the randomness comes from the seed.
//
// What must hold is said by the clients' own books: what was acknowledged can be
// read, once where that was promised, or was erased; what was erased comes back
// on no path, no key that it needs is on any surviving byte of the disk, and no
// value of a reading was ever written there in clear.
//
// Of three seeds two have a device that belongs to two owners by turns, hour by hour,
// and begin a few minutes before a month ends: what each may see of it, and what an
// erasure of a slice, of a category or of a month covers, is in the books too.
//
// Each third seed is a guarded hub's: it has a second holder of the root key and two
// copies of the keyring, each on a volume of its own that fills, goes away and comes
// back. Its operator fences and returns the holder, with the power going in the middle
// of that, loses a copy, and puts a copy in the place of a keyring that is lost. What
// must hold besides: a copy opens at any moment, and none goes back; no key of either
// holder that was destroyed is on any volume; certificates name a holder as pending
// until it is back, and not after; rotations do not interleave; in the end the copies
// are what the keyring is.
//
// Not simulated: a clock that is set while the hub runs (it is set back, or far
// forward, between two of its lives), bits that rot, and a volume that hangs: whoever
// waits for a mutex keeps the bubble's clock from going on. CONTRIBUTING.md tells how to
// play a seed again.
package simtest
