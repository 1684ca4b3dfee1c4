// Package tpmholder holds root keys in a TPM 2.0.
//
// The root key of generation n is a sealed data object of the TPM: a box that only
// this TPM opens, and only while a counter in its NV memory stands at or below a
// number. Destroying is incrementing: the counter never goes back, whatever copies
// of boxes, state files or keyrings somebody has kept. A counter that is undefined
// and made anew begins above every counter the TPM ever had.
//
// With the state file's start at generation g and counter c, a box of generation n
// opens while counter <= c + (n - g). Destroy(below) increments until the counter
// is c + (below - g), and reads it before each increment. What the TPM says of that
// is evidence: the counter signed by a key that signs nothing but what the TPM
// itself has made (TPM2_NV_Certify); Verify checks it without a TPM.
//
// The state file holds no key. It names the counter, has the password that the
// counter wants (so that others on the machine can't increment it), and how far
// generations were prepared. It is written before what it tells of; the TPM itself
// decides what opens. A copy of the state file opens nothing that the TPM does not.
//
// What this does not do: it can't keep the owner of the TPM's storage hierarchy
// from clearing the TPM or undefining the counter. Then no box opens any more,
// which loses data and never brings any back. An emulator's state can be copied
// while it is off, and a copy set back opens what was destroyed: the grade is Clear
// unless the TPM is shown to be of a maker that the operator lists.
//
// The formats of box, state file and evidence are in docs/format/tpm.md.
package tpmholder
