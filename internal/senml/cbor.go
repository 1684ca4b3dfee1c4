package senml

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/holdfast-iot/holdfast"
)

// strict decides what is CBOR at all: definite lengths, one item and nothing
// after it, bounded in depth and in the size of arrays and maps. Past it, every
// length in the input is known to lie within the input.
var strict = newStrict()

func newStrict() cbor.DecMode {
	mode, err := cbor.DecOptions{
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  MaxDepth,
		MaxArrayElements: MaxRecords,
		MaxMapPairs:      MaxFields,
	}.DecMode()
	if err != nil {
		panic(err) // constants out of the library's bounds
	}
	return mode
}

// CBOR's major types (RFC 8949, section 3.1).
const (
	cborUnsigned = iota
	cborNegative
	cborBytes
	cborText
	cborArray
	cborMap
	cborTag
	cborSimple
)

const tagDecimal = 4 // RFC 8949, section 3.4.4

// labels are the integers that stand for RFC 8428's names in CBOR (section 6).
const (
	labelBVer = -1
	labelBN   = -2
	labelBT   = -3
	labelBU   = -4
	labelBV   = -5
	labelBS   = -6
	labelN    = 0
	labelU    = 1
	labelV    = 2
	labelVS   = 3
	labelVB   = 4
	labelS    = 5
	labelT    = 6
	labelUT   = 7
	labelVD   = 8
)

// DecodeCBOR reads a pack of application/senml+cbor; now is as in DecodeJSON.
func DecodeCBOR(data []byte, now int64) ([]holdfast.Sample, error) {
	if err := strict.Wellformed(data); err != nil {
		return nil, cborError(err)
	}
	in := items{rest: data}
	major, _, records := in.head()
	if major != cborArray || records == 0 {
		return nil, errPack
	}
	p := pack{now: now, version: version, samples: make([]holdfast.Sample, 0, records)}
	var r record
	for i := range int(records) {
		err := in.record(&r)
		if err == nil {
			err = p.add(&r)
		}
		if err != nil {
			return nil, inRecord(i, err)
		}
	}
	return p.samples, nil
}

// cborError gives the library's error a kind; its text has offsets and limits.
func cborError(err error) error {
	kind := holdfast.Invalid
	if _, ok := errors.AsType[*cbor.MaxArrayElementsError](err); ok {
		kind = holdfast.TooLarge
	}
	if _, ok := errors.AsType[*cbor.MaxMapPairsError](err); ok {
		kind = holdfast.TooLarge
	}
	if _, ok := errors.AsType[*cbor.MaxNestedLevelError](err); ok {
		kind = holdfast.TooLarge
	}
	return holdfast.Errorf(kind, "read pack: %w", err)
}

// items reads the items of well-formed CBOR one after the other.
type items struct{ rest []byte }

// head reads the head of an item: its major type, the low five bits, and the
// argument.
func (in *items) head() (major, info byte, argument uint64) {
	major, info = in.rest[0]>>5, in.rest[0]&0x1f
	in.rest = in.rest[1:]
	switch info {
	case 24:
		argument, in.rest = uint64(in.rest[0]), in.rest[1:]
	case 25:
		argument, in.rest = uint64(binary.BigEndian.Uint16(in.rest)), in.rest[2:]
	case 26:
		argument, in.rest = uint64(binary.BigEndian.Uint32(in.rest)), in.rest[4:]
	case 27:
		argument, in.rest = binary.BigEndian.Uint64(in.rest), in.rest[8:]
	default:
		argument = uint64(info)
	}
	return major, info, argument
}

func (in *items) bytes(n uint64) []byte {
	b := in.rest[:n:n]
	in.rest = in.rest[n:]
	return b
}

// skip passes over one item; its depth is bounded by strict.
func (in *items) skip() {
	major, _, n := in.head()
	switch major {
	case cborBytes, cborText:
		in.bytes(n)
	case cborMap:
		n *= 2
		fallthrough
	case cborArray:
		for range n {
			in.skip()
		}
	case cborTag:
		in.skip()
	}
}

func (in *items) record(r *record) error {
	r.reset()
	major, _, pairs := in.head()
	if major != cborMap {
		return errPack
	}
	for range pairs {
		if err := in.field(r); err != nil {
			return err
		}
	}
	return nil
}

// field reads a label and what it labels.
func (in *items) field(r *record) error {
	start := in.rest
	major, _, n := in.head()
	switch {
	case major == cborUnsigned && n <= labelVD:
		return in.numbered(r, int(n))
	case major == cborNegative && n < -labelBS:
		return in.numbered(r, -1-int(n))
	case major == cborUnsigned || major == cborNegative:
		if err := r.ignore(nil, start[:len(start)-len(in.rest)]); err != nil {
			return err
		}
	case major == cborText:
		name := in.bytes(n)
		if !utf8.Valid(name) {
			return errUTF8
		}
		known, err := in.named(r, name)
		if known || err != nil {
			return err
		}
		if err := r.ignore(name, start[:len(start)-len(in.rest)]); err != nil {
			return err
		}
	default:
		return errType
	}
	in.skip()
	return nil
}

func (in *items) numbered(r *record, label int) error {
	switch label {
	case labelBN:
		return in.textField(r, fieldBN, &r.bn)
	case labelBT:
		return in.timeField(r, fieldBT, &r.bt)
	case labelBU:
		return in.textField(r, fieldBU, &r.bu)
	case labelBV:
		return in.quantityField(r, fieldBV, &r.bv)
	case labelBS:
		return in.quantityField(r, fieldBS, new(quantity))
	case labelBVer:
		return in.unsignedField(r, fieldBVer, &r.bver, errVersion)
	case labelN:
		return in.textField(r, fieldN, &r.n)
	case labelU:
		return in.textField(r, fieldU, &r.u)
	case labelV:
		return in.quantityField(r, fieldV, &r.v)
	case labelVS:
		return in.textField(r, fieldVS, &r.vs)
	case labelVB:
		return in.booleanField(r, fieldVB, &r.vb)
	case labelVD:
		return in.bytesField(r, fieldVD, &r.vd)
	case labelS:
		return in.quantityField(r, fieldS, new(quantity))
	case labelT:
		return in.timeField(r, fieldT, &r.t)
	default: // labelUT: the labels have no gap
		return in.timeField(r, fieldUT, new(int64))
	}
}

// named reads a field of ours, and reports whether it is one.
func (in *items) named(r *record, name []byte) (known bool, err error) {
	switch string(name) {
	case "hf_seq":
		return true, in.unsignedField(r, fieldSeq, &r.seq, errSeq)
	case "hf_int":
		return true, in.integerField(r, fieldInt, &r.integer)
	case "hf_loc":
		return true, in.locationField(r, fieldLoc, &r.location)
	case "hf_f":
		return true, in.textField(r, fieldF, &r.f)
	case "hf_ns_":
		return true, in.integerField(r, fieldNS, &r.ns)
	}
	return false, nil
}

// typed marks the field and reads the head of its value, which must be of the
// major type want.
func (in *items) typed(r *record, f field, want byte, wrong error) (uint64, error) {
	if err := r.mark(f); err != nil {
		return 0, err
	}
	major, _, n := in.head()
	if major != want {
		return 0, wrong
	}
	return n, nil
}

func (in *items) textField(r *record, f field, to *[]byte) error {
	n, err := in.typed(r, f, cborText, errType)
	if err != nil {
		return err
	}
	if *to = in.bytes(n); !utf8.Valid(*to) {
		return errUTF8
	}
	return nil
}

func (in *items) bytesField(r *record, f field, to *holdfast.Value) error {
	n, err := in.typed(r, f, cborBytes, errType)
	if err != nil {
		return err
	}
	b := in.bytes(n)
	if len(b) > holdfast.MaxValueBytes {
		return errTooLong
	}
	*to = holdfast.BytesValue(b)
	return nil
}

func (in *items) unsignedField(r *record, f field, to *uint64, wrong error) error {
	n, err := in.typed(r, f, cborUnsigned, wrong)
	*to = n
	return err
}

func (in *items) integerField(r *record, f field, to *int64) error {
	if err := r.mark(f); err != nil {
		return err
	}
	major, _, n := in.head()
	var ok bool
	if *to, ok = integerOf(major, n); !ok {
		return errInteger
	}
	return nil
}

func (in *items) booleanField(r *record, f field, to *bool) error {
	if err := r.mark(f); err != nil {
		return err
	}
	major, info, _ := in.head()
	*to = info == 21
	if major != cborSimple || info != 20 && info != 21 {
		return errType
	}
	return nil
}

func (in *items) quantityField(r *record, f field, to *quantity) error {
	if err := r.mark(f); err != nil {
		return err
	}
	var err error
	*to, err = in.quantity()
	return err
}

func (in *items) timeField(r *record, f field, to *int64) error {
	if err := r.mark(f); err != nil {
		return err
	}
	major, info, n := in.head()
	var ok bool
	switch {
	case major == cborUnsigned || major == cborNegative:
		var seconds int64
		if seconds, ok = integerOf(major, n); ok {
			*to, ok = secondsToNanos(seconds)
		}
	case major == cborSimple && isFloat(info):
		*to, ok = floatToNanos(floatOf(info, n))
	case major == cborTag && n == tagDecimal:
		d, err := in.decimal()
		if err != nil {
			return err
		}
		*to, ok = d.nanos()
	default:
		return errType
	}
	if !ok {
		return errTimeRange
	}
	return nil
}

func (in *items) locationField(r *record, f field, to *holdfast.Position) error {
	n, err := in.typed(r, f, cborArray, errLocation)
	if err != nil {
		return err
	}
	if n != 2 && n != 3 {
		return errLocation
	}
	to.Altitude = math.NaN()
	for _, part := range []*float64{&to.Latitude, &to.Longitude, &to.Altitude}[:n] {
		q, err := in.quantity()
		if err != nil {
			return err
		}
		*part = q.f
	}
	return nil
}

// quantity reads a number in any of its forms.
func (in *items) quantity() (quantity, error) {
	major, info, n := in.head()
	switch {
	case major == cborUnsigned || major == cborNegative:
		i, whole := integerOf(major, n)
		if !whole {
			if major == cborUnsigned {
				return quantity{f: float64(n)}, nil
			}
			if n < math.MaxUint64 { // -1-n; the float of the largest n is 2^64 already
				n++
			}
			return quantity{f: -float64(n)}, nil
		}
		return quantity{f: float64(i), i: i, whole: true}, nil
	case major == cborSimple && isFloat(info):
		return quantity{f: floatOf(info, n)}, nil
	case major == cborTag && n == tagDecimal:
		d, err := in.decimal()
		if err != nil {
			return quantity{}, err
		}
		q, ok := d.quantity()
		if !ok {
			return quantity{}, errOverflow
		}
		return q, nil
	}
	return quantity{}, errType
}

// decimal is a decimal fraction: mantissa * 10^exponent.
type decimal struct{ exponent, mantissa int64 }

// decimal reads the content of the tag, an array of exponent and mantissa.
func (in *items) decimal() (d decimal, err error) {
	major, _, n := in.head()
	if major != cborArray || n != 2 {
		return d, errType
	}
	for _, part := range []*int64{&d.exponent, &d.mantissa} {
		var ok bool
		major, _, n := in.head()
		if *part, ok = integerOf(major, n); !ok {
			return d, errType
		}
	}
	return d, nil
}

// literal is what JSON would write for d.
func (d decimal) literal() literal {
	n := literal{negative: d.mantissa < 0, digits: uint64(d.mantissa)}
	if n.negative {
		n.digits = -n.digits
	}
	if -9 <= d.exponent && d.exponent <= 0 { // an int64 has at most 19 digits
		n.fraction, n.short = int(-d.exponent), true
	}
	return n
}

// spell gives a literal of d its text, for the ways that need it.
func (d decimal) spell(n *literal) {
	n.text = strconv.AppendInt(nil, d.mantissa, 10)
	n.text = strconv.AppendInt(append(n.text, 'e'), d.exponent, 10)
}

func (d decimal) nanos() (int64, bool) {
	n := d.literal()
	if !n.short {
		d.spell(&n)
	}
	return n.nanos()
}

func (d decimal) quantity() (quantity, bool) {
	n := d.literal()
	if !n.short || n.digits >= 1<<53 {
		d.spell(&n)
	}
	return n.quantity()
}

// integerOf reports false if the item is no integer or beyond int64.
func integerOf(major byte, n uint64) (int64, bool) {
	switch {
	case n > math.MaxInt64:
		return 0, false
	case major == cborUnsigned:
		return int64(n), true
	case major == cborNegative:
		return -1 - int64(n), true
	}
	return 0, false
}

func isFloat(info byte) bool { return 25 <= info && info <= 27 }

// floatOf widens a float without changing what it says: the bits of a NaN keep
// their places.
func floatOf(info byte, n uint64) float64 {
	var fraction, exponent int // the widths in bits
	switch info {
	case 25:
		fraction, exponent = 10, 5
	case 26:
		fraction, exponent = 23, 8
	default:
		return math.Float64frombits(n)
	}
	most := 1<<exponent - 1
	mantissa := n & (1<<fraction - 1)
	power := int(n>>fraction) & most
	var f float64
	switch power {
	case most: // infinity or NaN
		f = math.Float64frombits(0x7ff<<52 | mantissa<<(52-fraction))
	case 0:
		f = math.Ldexp(float64(mantissa), 1-most/2-fraction)
	default:
		f = math.Ldexp(float64(mantissa|1<<fraction), power-most/2-fraction)
	}
	return math.Float64frombits(math.Float64bits(f) | n>>(fraction+exponent)<<63)
}
