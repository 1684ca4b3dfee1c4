// Package senml reads what devices publish, and writes what readers ask for, in
// Sensor Measurement Lists (RFC 8428): packs of records in JSON and in CBOR, and
// the single scalar of the topic data/STREAM (scalar.go).
//
// It promises that nothing is lost and nothing is guessed: a time keeps its
// nanoseconds (the digits of JSON are read as a decimal, never through a float),
// a number is the float64 that its literal names or, where only an int64 holds
// it exactly, that integer, and what AppendJSON and AppendCBOR write comes back
// bit for bit. A pack is taken whole or refused whole; an error names the record
// by its place in the pack, counted from 0, and never repeats its content.
// Memory is bounded by a constant and a small multiple of the input.
//
// It does no I/O, keeps no reference to its input, and does not decide whose a
// reading is or whether a stream may have it.
//
// # What is read
//
// The name of a stream is bn + n, checked by [holdfast.CheckName]; the character
// set of RFC 8428, section 4.5.1, is not enforced. Base fields hold for the
// records after them. A record carries exactly one value. A base version of 1 to
// 10 is understood and is the same in all records of a pack. Sums (s) are
// refused: a running total is a stream of its own here; bs, with nothing to add
// to, says nothing. The update time ut is read and dropped. A field that ends in
// "_" and is not known is refused, any other unknown one is ignored (section
// 4.4); no field may stand in a record twice.
//
// Times follow section 4.5.3. The sum bt + t is absolute Unix time from 2^28
// seconds on, and relative to the arrival below that; 0, or no time at all, is
// the arrival, and the sample is not Timed. A nanosecond is the finest step:
// finer digits are rounded, each number by itself.
//
// Where v is an integer literal and bv too they are added as integers, else as
// float64.
//
// In CBOR a number is an integer, a float of 16, 32 or 64 bits, or a decimal
// fraction (tag 4). Lengths are definite.
//
// # Labels of our own
//
//	hf_seq   unsigned integer: the device's sequence number
//	hf_int   integer: the value, as an integer and not a number. v may stand
//	         beside it, for readers that don't know it, and must then be the same
//	         number as near as a float64 can say it
//	hf_loc   [latitude, longitude] or [latitude, longitude, altitude]: the value,
//	         WGS 84 in degrees and metres
//	hf_f     "NaN", "Infinity", "-Infinity", or "NaN:" and the 16 hexadecimal
//	         digits of another NaN's bits: the value, a number JSON can't write
//	hf_ns_   integer: the time in nanoseconds since 1970, absolute whatever its
//	         size, in place of bt and t. SenML itself can't name a time before
//	         1978-07-04, so who doesn't know this label must not read the record:
//	         hence the "_"
package senml

// Media types of packs (RFC 8428, section 12.3).
const (
	MediaJSON = "application/senml+json"
	MediaCBOR = "application/senml+cbor"
)

// Limits on one pack. Those on a value and a name are the root package's.
const (
	MaxRecords = 10_000
	MaxFields  = 64 // of one record, unknown ones included
	MaxDepth   = 8  // of arrays, maps and tags, the pack and its records included
)

// version is the newest base version understood (RFC 8428, section 4.4).
const version = 10

// relative is where absolute time begins: 2^28 seconds, in nanoseconds.
const relative = 1 << 28 * 1_000_000_000
