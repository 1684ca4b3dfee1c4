// Package blob keeps immutable objects under ids: the segments that the roll
// writes, and what is too large for a reading. A blob is put once, read in parts,
// and in the end punched or deleted when its keys are gone.
//
// It promises that Put is durable and all or nothing, that an id never changes its
// bytes but for the ranges that Punch made zero, and that Delete and Punch of a
// driver on a local disk overwrite the bytes before giving the space back.
//
// It does not know what the bytes are, does not encrypt, and does not check them
// on reading: every part of a blob is sealed, and opening the seal is the check.
// What a file system or a drive keeps of overwritten blocks is beyond its reach:
// erasure rests on destroyed keys, this is tidying up.
//
// Dir is the driver on a folder; how it lies there is written in
// docs/format/blob-folder.md. Other drivers pass the suite of package blobtest.
package blob
