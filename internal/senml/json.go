package senml

import (
	"bytes"
	"encoding/base64"
	"math"

	"github.com/holdfast-iot/holdfast"
)

var (
	errPack    = holdfast.Errorf(holdfast.Invalid, "a SenML pack is an array of at least one record")
	errRecords = holdfast.Errorf(holdfast.TooLarge, "a pack has at most %d records", MaxRecords)
	errType    = holdfast.Errorf(holdfast.Invalid, "a field has a value of the wrong type")
)

// DecodeJSON reads a pack of application/senml+json. now is the arrival, in
// nanoseconds since 1970: relative times count from it.
func DecodeJSON(data []byte, now int64) ([]holdfast.Sample, error) {
	s := scanner{data: data}
	p := pack{now: now, version: version, samples: make([]holdfast.Sample, 0, min(len(data)/48+1, MaxRecords))}
	var r record
	if !s.take('[') || s.peek() == ']' {
		return nil, errPack
	}
	for i := 0; ; i++ {
		if i == MaxRecords {
			return nil, errRecords
		}
		err := s.record(&r)
		if err == nil {
			err = p.add(&r)
		}
		if err != nil {
			return nil, inRecord(i, err)
		}
		if s.take(']') {
			break
		}
		if !s.take(',') {
			return nil, inRecord(i+1, errSyntax)
		}
	}
	if !s.end() {
		return nil, errPack
	}
	return p.samples, nil
}

func inRecord(i int, err error) error {
	return holdfast.Errorf(holdfast.KindOf(err), "record %d: %w", i, err)
}

func (s *scanner) record(r *record) error {
	r.reset()
	if !s.take('{') {
		return errSyntax
	}
	if s.take('}') {
		return nil
	}
	for range MaxFields {
		key, err := s.key()
		if err != nil {
			return err
		}
		s.peek()
		if err := s.field(r, key); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
	return errFields
}

func (s *scanner) field(r *record, key []byte) error {
	switch string(key) {
	case "bn":
		return s.textField(r, fieldBN, &r.bn)
	case "bt":
		return s.timeField(r, fieldBT, &r.bt)
	case "bu":
		return s.textField(r, fieldBU, &r.bu)
	case "bv":
		return s.quantityField(r, fieldBV, &r.bv)
	case "bs":
		return s.quantityField(r, fieldBS, new(quantity))
	case "bver":
		return s.unsignedField(r, fieldBVer, &r.bver, errVersion)
	case "n":
		return s.textField(r, fieldN, &r.n)
	case "u":
		return s.textField(r, fieldU, &r.u)
	case "v":
		return s.quantityField(r, fieldV, &r.v)
	case "vs":
		return s.textField(r, fieldVS, &r.vs)
	case "vb":
		return s.booleanField(r, fieldVB, &r.vb)
	case "vd":
		return s.bytesField(r, fieldVD, &r.vd)
	case "s":
		return s.quantityField(r, fieldS, new(quantity))
	case "t":
		return s.timeField(r, fieldT, &r.t)
	case "ut":
		return s.timeField(r, fieldUT, new(int64))
	case "hf_seq":
		return s.unsignedField(r, fieldSeq, &r.seq, errSeq)
	case "hf_int":
		return s.integerField(r, fieldInt, &r.integer)
	case "hf_loc":
		return s.locationField(r, fieldLoc, &r.location)
	case "hf_f":
		return s.textField(r, fieldF, &r.f)
	case "hf_ns_":
		return s.integerField(r, fieldNS, &r.ns)
	}
	if err := r.ignore(key, key); err != nil {
		return err
	}
	return s.skip(2)
}

func (s *scanner) textField(r *record, f field, to *[]byte) error {
	if err := r.mark(f); err != nil {
		return err
	}
	if s.peek() != '"' {
		return errType
	}
	text, err := s.text()
	*to = text
	return err
}

// numberField reads the literal of a field that is a number.
func (s *scanner) numberField(r *record, f field, n *literal) error {
	if err := r.mark(f); err != nil {
		return err
	}
	if c := s.peek(); c != '-' && c-'0' > 9 {
		return errType
	}
	return s.number(n)
}

func (s *scanner) quantityField(r *record, f field, to *quantity) error {
	var n literal
	var ok bool
	if err := s.numberField(r, f, &n); err != nil {
		return err
	}
	if *to, ok = n.quantity(); !ok {
		return errOverflow
	}
	return nil
}

func (s *scanner) timeField(r *record, f field, to *int64) error {
	var n literal
	var ok bool
	if err := s.numberField(r, f, &n); err != nil {
		return err
	}
	if *to, ok = n.nanos(); !ok {
		return errTimeRange
	}
	return nil
}

func (s *scanner) unsignedField(r *record, f field, to *uint64, wrong error) error {
	var n literal
	var ok bool
	if err := s.numberField(r, f, &n); err != nil {
		return err
	}
	if *to, ok = n.unsigned(); !ok {
		return wrong
	}
	return nil
}

func (s *scanner) integerField(r *record, f field, to *int64) error {
	var n literal
	var ok bool
	if err := s.numberField(r, f, &n); err != nil {
		return err
	}
	if *to, ok = n.integer(); !ok {
		return errInteger
	}
	return nil
}

func (s *scanner) booleanField(r *record, f field, to *bool) error {
	if err := r.mark(f); err != nil {
		return err
	}
	switch {
	case s.word("true"):
		*to = true
	case !s.word("false"):
		return errType
	}
	return nil
}

// bytesField reads base64 of the URL alphabet; padding, which RFC 8428 leaves
// out, is taken too.
func (s *scanner) bytesField(r *record, f field, to *holdfast.Value) error {
	var text []byte
	err := s.textField(r, f, &text)
	if err != nil {
		return err
	}
	encoding := base64.RawURLEncoding
	if bytes.HasSuffix(text, []byte("=")) {
		encoding = base64.URLEncoding
	}
	*to, err = bytesValue(encoding, text)
	return err
}

func (s *scanner) locationField(r *record, f field, to *holdfast.Position) error {
	if err := r.mark(f); err != nil {
		return err
	}
	if !s.take('[') {
		return errLocation
	}
	to.Altitude = math.NaN()
	if err := s.degrees(&to.Latitude); err != nil {
		return err
	}
	if !s.take(',') {
		return errLocation
	}
	if err := s.degrees(&to.Longitude); err != nil {
		return err
	}
	if s.take(',') {
		if err := s.degrees(&to.Altitude); err != nil {
			return err
		}
	}
	if !s.take(']') {
		return errLocation
	}
	return nil
}
