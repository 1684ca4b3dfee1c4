package senml

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"math/bits"
	"strings"
	"unicode"

	"github.com/holdfast-iot/holdfast"
)

var (
	errRepeated  = holdfast.Errorf(holdfast.Invalid, "a field stands twice")
	errFields    = holdfast.Errorf(holdfast.TooLarge, "a record has at most %d fields", MaxFields)
	errRequired  = holdfast.Errorf(holdfast.Invalid, "it has a field that ends in _ and is not known here")
	errSum       = holdfast.Errorf(holdfast.Invalid, "sums (s) are not taken: send the running total as the value of a stream")
	errNoValue   = holdfast.Errorf(holdfast.Invalid, "it has no value")
	errTwoValues = holdfast.Errorf(holdfast.Invalid, "it has more than one value")
	errTwoTimes  = holdfast.Errorf(holdfast.Invalid, "it has both t and hf_ns_")
	errVersion   = holdfast.Errorf(holdfast.Invalid, "its base version (bver) is not an integer from 1 to %d, the same in all records", version)
	errFloat     = holdfast.Errorf(holdfast.Invalid, `hf_f is "NaN", "Infinity", "-Infinity" or "NaN:" and 16 hexadecimal digits`)
	errInteger   = holdfast.Errorf(holdfast.Invalid, "hf_int and hf_ns_ are integers of 64 bits, and a v beside hf_int is the same number")
	errUnit      = holdfast.Errorf(holdfast.Invalid, "a unit has at most %d bytes and no control characters", holdfast.MaxNameBytes)
	errLongName  = holdfast.Errorf(holdfast.Invalid, "the name of a stream has at most %d bytes", holdfast.MaxNameBytes)
	errLocation  = holdfast.Errorf(holdfast.Invalid, "a location has a latitude from -90 to 90, a longitude from -180 to 180 and perhaps an altitude, all numbers")
	errBase64    = holdfast.Errorf(holdfast.Invalid, "bytes are written in base64 (RFC 4648)")
)

// field is a set of the fields of a record.
type field uint32

const (
	fieldBN field = 1 << iota
	fieldBT
	fieldBU
	fieldBV
	fieldBS
	fieldBVer
	fieldN
	fieldU
	fieldV
	fieldVS
	fieldVB
	fieldVD
	fieldS
	fieldT
	fieldUT
	fieldSeq
	fieldInt
	fieldLoc
	fieldF
	fieldNS

	fieldValue = fieldV | fieldVS | fieldVB | fieldVD | fieldInt | fieldLoc | fieldF
)

// record is what both encodings read a record into. Its slices belong to the
// input; a field is valid if it is in has.
type record struct {
	has      field
	unknown  [][]byte // names of unknown fields, to find one twice
	bn, n    []byte
	bu, u    []byte
	bt, t    int64 // ns
	bv, v    quantity
	bver     uint64
	vs, f    []byte
	vd       holdfast.Value
	vb       bool
	seq      uint64
	integer  int64
	location holdfast.Position
	ns       int64
}

func (r *record) reset() { *r = record{unknown: r.unknown[:0]} }

// mark notes a field, and refuses it the second time.
func (r *record) mark(f field) error {
	if r.has&f != 0 {
		return errRepeated
	}
	r.has |= f
	return nil
}

// ignore notes a field that is not known; name is its name as text, if it is
// one, and raw what tells it from others.
func (r *record) ignore(name, raw []byte) error {
	if len(name) > 0 && name[len(name)-1] == '_' {
		return errRequired
	}
	for _, u := range r.unknown {
		if string(u) == string(raw) {
			return errRepeated
		}
	}
	r.unknown = append(r.unknown, raw)
	return nil
}

// pack resolves records (RFC 8428, section 4.6) into samples.
type pack struct {
	now     int64
	samples []holdfast.Sample
	version uint64
	name    []byte // base name
	unit    string // base unit
	time    int64  // base time
	value   quantity
	valued  bool
	last    string // the unit of the record before: most packs have few units
}

func (p *pack) add(r *record) error {
	if err := p.base(r); err != nil {
		return err
	}
	var out holdfast.Sample
	var err error
	if out.Stream, err = p.stream(r.n); err != nil {
		return err
	}
	out.Unit = p.unit
	if r.has&fieldU != 0 {
		if out.Unit, err = p.intern(r.u); err != nil {
			return err
		}
	}
	if out.Value, err = p.valueOf(r); err != nil {
		return err
	}
	out.Literal = r.has&fieldV != 0 && r.has&fieldInt == 0
	if out.Time, out.Timed, err = p.timeOf(r); err != nil {
		return err
	}
	out.Seq = r.seq
	p.samples = append(p.samples, out)
	return nil
}

// stream joins base name and name, and checks what came out. Packs of one stream
// at many times are common: they share its name.
func (p *pack) stream(name []byte) (string, error) {
	if len(p.name)+len(name) > holdfast.MaxNameBytes { // before the two are copied
		return "", errLongName
	}
	full := append(append(make([]byte, 0, holdfast.MaxNameBytes), p.name...), name...)
	if n := len(p.samples); n > 0 && p.samples[n-1].Stream == string(full) {
		return p.samples[n-1].Stream, nil
	}
	s := string(full)
	return s, holdfast.CheckName("stream", s)
}

// base takes over the base fields of a record.
func (p *pack) base(r *record) error {
	if r.has&fieldBVer != 0 {
		if len(p.samples) == 0 {
			p.version = r.bver
		}
		if r.bver < 1 || r.bver > version || r.bver != p.version {
			return errVersion
		}
	}
	if r.has&fieldBN != 0 {
		p.name = r.bn
	}
	if r.has&fieldBT != 0 {
		p.time = r.bt
	}
	if r.has&fieldBV != 0 {
		p.value, p.valued = r.bv, true
	}
	if r.has&fieldBU != 0 {
		unit, err := p.intern(r.bu)
		if err != nil {
			return err
		}
		p.unit = unit
	}
	return nil
}

func (p *pack) intern(unit []byte) (string, error) {
	if string(unit) == p.last {
		return p.last, nil
	}
	if len(unit) > holdfast.MaxNameBytes {
		return "", errUnit
	}
	s := string(unit)
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", errUnit
	}
	p.last = s
	return s, nil
}

func (p *pack) valueOf(r *record) (holdfast.Value, error) {
	values := r.has & fieldValue
	switch {
	case r.has&fieldS != 0:
		return holdfast.Value{}, errSum
	case values == 0:
		return holdfast.Value{}, errNoValue
	case bits.OnesCount32(uint32(values)) > 1 && values != fieldV|fieldInt:
		return holdfast.Value{}, errTwoValues
	}
	if values&fieldV != 0 && p.valued {
		sum, ok := r.v.plus(p.value)
		if !ok {
			return holdfast.Value{}, errOverflow
		}
		r.v = sum
	}
	switch values {
	case fieldV:
		return r.v.value(), nil
	case fieldV | fieldInt:
		if r.v.f != float64(r.integer) {
			return holdfast.Value{}, errInteger
		}
		return holdfast.IntegerValue(r.integer), nil
	case fieldInt:
		return holdfast.IntegerValue(r.integer), nil
	case fieldVS:
		return textValue(r.vs)
	case fieldVB:
		return holdfast.BooleanValue(r.vb), nil
	case fieldVD:
		return r.vd, nil
	case fieldLoc:
		return locationValue(r.location)
	default:
		return floatValue(r.f)
	}
}

// timeOf applies RFC 8428, section 4.5.3.
func (p *pack) timeOf(r *record) (int64, bool, error) {
	if r.has&fieldNS != 0 {
		if r.has&fieldT != 0 {
			return 0, false, errTwoTimes
		}
		return r.ns, true, nil
	}
	sum, ok := add(p.time, r.t)
	if ok && sum == 0 {
		return 0, false, nil
	}
	if ok && sum < relative {
		sum, ok = add(sum, p.now)
	}
	if !ok {
		return 0, false, errTimeRange
	}
	return sum, true, nil
}

func textValue(text []byte) (holdfast.Value, error) {
	if len(text) > holdfast.MaxValueBytes {
		return holdfast.Value{}, errTooLong
	}
	return holdfast.TextValue(string(text)), nil
}

func bytesValue(e *base64.Encoding, text []byte) (holdfast.Value, error) {
	if e.DecodedLen(len(text)) > holdfast.MaxValueBytes+2 { // two may be padding
		return holdfast.Value{}, errTooLong
	}
	b, err := e.Strict().AppendDecode(nil, text)
	if err != nil {
		return holdfast.Value{}, errBase64
	}
	if len(b) > holdfast.MaxValueBytes {
		return holdfast.Value{}, errTooLong
	}
	return holdfast.BytesValue(b), nil
}

// locationValue takes no altitude for NaN.
func locationValue(at holdfast.Position) (holdfast.Value, error) {
	if !(math.Abs(at.Latitude) <= 90 && math.Abs(at.Longitude) <= 180) || math.IsInf(at.Altitude, 0) {
		return holdfast.Value{}, errLocation
	}
	return holdfast.LocationValue(at), nil
}

func floatValue(text []byte) (holdfast.Value, error) {
	switch string(text) {
	case "NaN":
		return holdfast.NumberValue(math.NaN()), nil
	case "Infinity":
		return holdfast.NumberValue(math.Inf(1)), nil
	case "-Infinity":
		return holdfast.NumberValue(math.Inf(-1)), nil
	}
	var b [8]byte
	digits, ok := strings.CutPrefix(string(text), "NaN:")
	if ok && len(digits) == 16 {
		if _, err := hex.Decode(b[:], []byte(digits)); err == nil {
			var u uint64
			for _, c := range b {
				u = u<<8 | uint64(c)
			}
			if f := math.Float64frombits(u); math.IsNaN(f) {
				return holdfast.NumberValue(f), nil
			}
		}
	}
	return holdfast.Value{}, errFloat
}
