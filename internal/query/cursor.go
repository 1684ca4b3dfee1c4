package query

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// place is where a page ended: behind `given` rows of a time, in a stream. For
// windows, time is where the next one may begin and given is 0, or wholeStream; the
// stream may be a group's key.
//
// Rows of one time are in order of arrival and a later one comes behind them,
// so the count stays right when readings arrive between two pages.
type place struct {
	stream holdfast.StreamID
	span   holdfast.Span // of the first page's request
	time   int64
	back   int64 // windows: from where readings are needed to say what comes next
	given  uint64
}

const cursorVersion = 2

// bind is a hash of what makes pages belong together: all of a request but its
// span, which the cursor carries, and its limit. It guards against mistakes; a
// page's rights are decided anew, whatever its cursor says.
func (r Request) bind(p holdfast.Purpose) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q %s %s %s %q %d %v %d %d %d %s %d %d %v %s",
		r.Who.Party, p, r.Party, r.Device, r.Group, r.Stream, r.Every, r.Aggregates, r.Calendar.Days, r.Calendar.Weeks, r.Calendar.Months, r.ruler().zone,
		r.By, r.Fill, r.FillValue, r.Grant))
	return sum[:8]
}

func (p place) encode(bind []byte) string {
	b := append([]byte{cursorVersion}, bind...)
	b = append(b, p.stream[:]...)
	for _, t := range []int64{p.span.From, p.span.To, p.time, p.back} {
		b = binary.BigEndian.AppendUint64(b, uint64(t))
	}
	b = binary.AppendUvarint(b, p.given)
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(s string, bind []byte) (p place, err error) {
	const fixed = 1 + 8 + holdfast.IDSize + 4*8
	refused := holdfast.Errorf(holdfast.Invalid, "the cursor is damaged: ask again from the start")
	if len(s) > 2*fixed {
		return p, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= fixed || b[0] != cursorVersion {
		return p, refused
	}
	if string(b[1:9]) != string(bind) {
		return p, holdfast.Errorf(holdfast.Invalid, "the cursor belongs to another request: a next page has the same reader, purpose, selection and windows")
	}
	b = b[9+copy(p.stream[:], b[9:]):]
	for _, t := range []*int64{&p.span.From, &p.span.To, &p.time, &p.back} {
		*t, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	}
	given, n := binary.Uvarint(b)
	if n != len(b) || !p.span.Contains(p.time) || p.back > p.time {
		return p, refused
	}
	p.given = given
	return p, nil
}
