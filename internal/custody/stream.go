package custody

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"math"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// MaxStreams is how many streams a device has at most.
const MaxStreams = 1000

// Stream is one kind of reading of a device. It never changes once it is handed
// out; a stream that learns its unit is handed out anew.
type Stream struct {
	ID            holdfast.StreamID
	Assignment    holdfast.AssignmentID
	Name          string
	Type          holdfast.ValueType
	Unit          string // as the profile or the first reading that carried one says
	Category      string // W3C DPV IRI, "" if nobody said
	Sensitivity   string // SensitivityNormal, SensitivitySensitive, SensitivitySpecial; "" if nobody said
	Purposes      []holdfast.Purpose
	RetentionDays int  // 0: as long as a purpose lives
	MinimumTier   int  // least protection of the device's key, 0: any
	Open          bool // made by its first reading, not by a profile
	Daily         bool // its key bucket is a day of arrival, not a month
}

type streamInfo struct {
	Name          string             `json:"name"`
	Type          string             `json:"type"`
	Unit          string             `json:"unit,omitempty"`
	Category      string             `json:"category,omitempty"`
	Sensitivity   string             `json:"sensitivity,omitempty"`
	Purposes      []holdfast.Purpose `json:"purposes"`
	RetentionDays int                `json:"retention_days,omitempty"`
	MinimumTier   int                `json:"minimum_tier,omitempty"`
	Open          bool               `json:"open,omitempty"`
}

func (i streamInfo) stream(id holdfast.StreamID, a holdfast.AssignmentID) (*Stream, error) {
	t, err := holdfast.ParseValueType(i.Type)
	if err != nil {
		return nil, err
	}
	return &Stream{
		ID: id, Assignment: a, Name: i.Name, Type: t, Unit: i.Unit, Category: i.Category, Sensitivity: i.Sensitivity,
		Purposes: i.Purposes, RetentionDays: i.RetentionDays, MinimumTier: i.MinimumTier, Open: i.Open,
		Daily: i.RetentionDays > 0 && i.RetentionDays <= seal.DailyDays,
	}, nil
}

// lacksUnit reports that the stream may still learn its unit, and x carries one.
func (s *Stream) lacksUnit(x *holdfast.Sample) bool { return s.Open && s.Unit == "" && x.Unit != "" }

// exactInteger is the magnitude up to which a float64 holds every integer.
const exactInteger = 1 << 53

// Accept returns x's value as the stream's type, without loss, or Invalid with
// the reason. Reasons name types, never values.
func (s *Stream) Accept(x *holdfast.Sample) (holdfast.Value, error) {
	if x.Unit != "" && x.Unit != s.Unit {
		return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "the reading's unit is not the stream's")
	}
	v := x.Value
	if v.Type() == s.Type && v.Type().Valid() {
		return v, nil
	}
	switch {
	case s.Type == holdfast.Integer && v.Type() == holdfast.Number:
		f := v.Number()
		if math.Trunc(f) != f || math.Abs(f) > exactInteger { // NaN and infinities fail one or the other
			return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "an integer stream takes a number only if it is whole and at most 2^53 in size")
		}
		return holdfast.IntegerValue(int64(f)), nil
	case s.Type == holdfast.Number && v.Type() == holdfast.Integer:
		i := v.Integer()
		f := float64(i)
		// 2^63 as float64 is out of int64's range: converting it back is not defined.
		if f >= 1<<63 || int64(f) != i {
			return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "a number stream takes an integer only if a 64-bit float holds it exactly")
		}
		return holdfast.NumberValue(f), nil
	case s.Type == holdfast.Number && v.Type() == holdfast.Text:
		switch v.Text() {
		case "NaN":
			return holdfast.NumberValue(math.NaN()), nil
		case "Infinity", "+Infinity":
			return holdfast.NumberValue(math.Inf(1)), nil
		case "-Infinity":
			return holdfast.NumberValue(math.Inf(-1)), nil
		}
		return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "a number stream takes no text but NaN, Infinity, +Infinity and -Infinity")
	case s.Type == holdfast.Bytes && v.Type() == holdfast.Text && !s.Open:
		b, err := base64.StdEncoding.Strict().DecodeString(v.Text())
		if err != nil {
			return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "a bytes stream takes text only if it is standard base64")
		}
		return holdfast.BytesValue(b), nil
	}
	return holdfast.Value{}, holdfast.Errorf(holdfast.Invalid, "the stream is %s, the reading is %s", s.Type, v.Type())
}

// openType returns the type of a stream that x makes.
func openType(x holdfast.Sample) holdfast.ValueType {
	if x.Literal {
		return holdfast.Number // whichever number comes first, 20 or 20.5
	}
	return x.Value.Type()
}

type streamRow struct {
	id         holdfast.StreamID
	assignment holdfast.AssignmentID
	box        []byte
}

func (c *Custody) streams(ctx context.Context, where string, args ...any) ([]*Stream, error) {
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r streamRow, err error) {
		return r, q.Scan(&r.id, &r.assignment, &r.box)
	}, `SELECT s.id, s.assignment, s.info_sealed FROM stream s WHERE s.state = 'active' AND `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]*Stream, 0, len(rows))
	for _, r := range rows {
		var info streamInfo
		switch err := c.open(ctx, vault.OfAssignment(r.assignment), "stream", r.id[:], r.box, &info); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		s, err := info.stream(r.id, r.assignment)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Stream) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Streams returns the streams of a device's assignment, by name.
func (c *Custody) Streams(ctx context.Context, device holdfast.DeviceID) ([]*Stream, error) {
	return c.streams(ctx, `s.assignment IN (SELECT assignment FROM device WHERE id = $1)`, device)
}

// StreamsOf returns the streams of a device's own assignment, by name. They are in
// memory after the first question.
func (c *Custody) StreamsOf(ctx context.Context, d Device) ([]*Stream, error) {
	return c.streamsOf(ctx, d.ID, d.Assignment)
}

func (c *Custody) streamsOf(ctx context.Context, d holdfast.DeviceID, a holdfast.AssignmentID) ([]*Stream, error) {
	if r, err := c.route(ctx, d); err == nil && r.denied == nil {
		if r = r.of(a); r != nil && r.denied == nil {
			return r.sorted(), nil
		}
	}
	return c.streams(ctx, ofAssignment, a)
}

// StreamsOfAssignment returns the streams of an assignment, by name. Those of one
// that takes readings are in memory after the first question.
func (c *Custody) StreamsOfAssignment(ctx context.Context, a Assignment) ([]*Stream, error) {
	return c.streamsOf(ctx, a.Device, a.ID)
}

// StreamNamed returns an assignment's stream of that name.
func (c *Custody) StreamNamed(ctx context.Context, a holdfast.AssignmentID, name string) (*Stream, error) {
	if r := c.known(a); r != nil {
		if s, ok := r.Stream(name); ok {
			return s, nil
		}
	}
	hash, err := c.streamHash(ctx, a, name)
	if err != nil {
		return nil, err
	}
	return onlyStream(c.streams(ctx, `s.assignment = $1 AND s.name_hash = $2`, a, hash))
}

const ofAssignment = `s.assignment = $1`

// Stream returns a stream by its id.
func (c *Custody) Stream(ctx context.Context, id holdfast.StreamID) (*Stream, error) {
	return onlyStream(c.streams(ctx, `s.id = $1`, id))
}

// StreamByName returns the stream of that name of a device's own assignment.
func (c *Custody) StreamByName(ctx context.Context, device holdfast.DeviceID, name string) (*Stream, error) {
	d, err := c.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	return c.StreamNamed(ctx, d.Assignment, name)
}

func onlyStream(all []*Stream, err error) (*Stream, error) {
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no such stream")
	}
	return all[0], nil
}

func (c *Custody) streamHash(ctx context.Context, a holdfast.AssignmentID, name string) ([]byte, error) {
	return c.keys.Hash(ctx, "stream name", string(a[:])+"\x00"+name)
}
