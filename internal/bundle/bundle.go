// Package bundle is the form in which an owner's data leave Holdfast whole: a
// folder in open formats that can be checked and read without Holdfast.
//
// The folder is a BagIt 1.0 bag (RFC 8493) with a Data Package v2 description:
//
//	bagit.txt                 that it is a bag
//	bag-info.txt              whose, when, by whom, how much
//	datapackage.json          every payload file with its size, hash and columns
//	README.md                 how to check and open it
//	manifest-sha256.txt       SHA-256 of every payload file, as sha256sum writes it
//	tagmanifest-sha256.txt    SHA-256 of the five files above
//	signature.note            the hub's signature over tagmanifest-sha256.txt
//	data/observations/part-NNNNNN.parquet   the readings
//	data/*.ndjson             devices, streams, assignments, purposes, grants,
//	                          disclosures, the owner's slice of the ledger, its
//	                          events in the clear and the balance sheet
//	data/receipts/GRANT.json  the signed receipt of each grant
//
// The package has the structures and their bytes; it promises that what it writes
// it reads back bit for bit, and that what it reads may be anybody's: damaged or
// made to do harm, it ends in an error. It reads and writes through interfaces
// only, and does not know where the data come from. docs/format/bundle.md is its
// page.
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Version is the version of the form.
const Version = 1

// Names of the files that are not payload.
const (
	DeclarationName = "bagit.txt"
	InfoName        = "bag-info.txt"
	PackageName     = "datapackage.json"
	ReadmeName      = "README.md"
	ManifestName    = "manifest-sha256.txt"
	TagManifestName = "tagmanifest-sha256.txt"
	SignatureName   = "signature.note"
)

// Names of the payload files. Of one kind of record that is too much for a file
// the next ones are called NAME-000002.ndjson and so on.
const (
	PayloadFolder   = "data/"
	DevicesName     = "data/devices.ndjson"
	StreamsName     = "data/streams.ndjson"
	AssignmentsName = "data/assignments.ndjson"
	PurposesName    = "data/purposes.ndjson"
	GrantsName      = "data/grants.ndjson"
	DisclosuresName = "data/disclosures.ndjson"
	LedgerName      = "data/ledger.ndjson"
	EventsName      = "data/events.ndjson"
	BalanceName     = "data/balance.ndjson"
	partsFolder     = "data/observations/"
	receiptsFolder  = "data/receipts/"
)

// Declaration is the content of bagit.txt.
const Declaration = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

// PartName returns the name of the n-th file of readings, from 1.
func PartName(n int) string { return fmt.Sprintf("%spart-%06d.parquet", partsFolder, n) }

// ReceiptName returns the name of a grant's receipt.
func ReceiptName(grant string) string { return receiptsFolder + grant + ".json" }

// IsPart reports whether a payload file holds readings.
func IsPart(name string) bool {
	return strings.HasPrefix(name, partsFolder) && strings.HasSuffix(name, ".parquet")
}

// NextName returns the name of the n-th file of a kind of record, from 1.
func NextName(name string, n int) string {
	if n == 1 {
		return name
	}
	return fmt.Sprintf("%s-%06d.ndjson", strings.TrimSuffix(name, ".ndjson"), n)
}

// IsPayload reports whether a file is payload: the rest of a bag describes it.
func IsPayload(name string) bool { return strings.HasPrefix(name, PayloadFolder) }

// File is a file of the bag.
type File struct {
	Name   string
	Size   int64
	SHA256 [sha256.Size]byte
}

// FileOf returns what the manifest says of a file.
func FileOf(name string, content []byte) File {
	return File{Name: name, Size: int64(len(content)), SHA256: sha256.Sum256(content)}
}

// signed begins the text of a signature, so that it can't be taken for any other
// thing that the same key signs.
const signed = "holdfast bundle 1"

// SignedText returns what the hub signs: that this is a bundle, which, and the
// hash of its tagmanifest, from which everything else hangs.
func SignedText(id string, tagManifest []byte) string {
	sum := sha256.Sum256(tagManifest)
	return fmt.Sprintf("%s\n%s\n%s\n", signed, id, hex.EncodeToString(sum[:]))
}

// invalid is an error about a file of a bag. It names the file, not its content.
func invalid(format string, args ...any) error {
	return holdfast.Errorf(holdfast.Invalid, format, args...)
}
