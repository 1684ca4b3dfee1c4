// Package backup keeps copies of a hub: its segments and its catalog, as they were
// at one moment, encrypted to age recipients, in a folder that may lie anywhere.
//
// A backup is made while the hub serves. It begins with a roll, so that it needs no
// journal, and with a copy of the catalog; the segments that this names are kept
// from being tidied away until the backup has ended. Each part is a piece, stored
// once under a keyed name: what is there already is not written again. A manifest,
// signed by the ledger's key and encrypted like the pieces, says what belongs
// together. docs/format/backup.md has the bytes.
//
// It promises that a backup is there whole or not at all, whatever interrupts it;
// that what a piece holds is what the hub had, or Check and Fetch say which piece
// is not; and that a backup which begins after an erasure has ended holds nothing
// of what was erased, not even ciphertext.
//
// It holds no key: neither root key nor keyring. Who has a backup and its age
// identity has what who has the data folder has without the root key. What an
// erasure destroyed stays unreadable in every older backup, for its owner key is in
// no keyring any more.
package backup
