package query

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// phase says what a feed is giving.
type phase uint8

const (
	tailPhase     phase = iota // what arrives
	snapshotPhase              // what was stored before pos, from a time or an arrival on
	delayedPhase               // what was stored before pos and has become old enough
)

// mark is where a feed stands. All that arrived before pos was given, of delayed
// streams what was old enough at now; but for what its phase still gives. Within a
// record, or a phase, it stands behind `given` readings of a time of a stream.
type mark struct {
	phase   phase
	epoch   uint64     // of positions
	pos     series.Pos // of the record, or behind the last
	now     int64
	arrived int64 // what is at pos or later arrived about then or later
	from    int64 // snapshot: times from here on
	since   int64 // snapshot: arrivals from here on, about
	until   int64 // delayed: the next now

	assignment holdfast.AssignmentID
	stream     holdfast.StreamID
	time       int64
	given      uint64
}

// marks makes cursors of marks. They are sealed: positions would tell how much the
// hub takes in, and nobody makes one himself. A feed seals with a key of its own,
// which is made of the hub's and a salt that the cursor names.
type marks struct {
	q     *Query
	owner [16]byte
	bind  []byte
	salt  [16]byte
	key   *seal.Cipher
	plain []byte
	box   []byte
}

const (
	markVersion = 1
	markSize    = 1 + 7*8 + 2*holdfast.IDSize + 8
)

// newMarks binds cursors to the reader's party, purpose, selection and grant.
func (q *Query) newMarks(ctx context.Context, req *Request, p holdfast.Purpose) (*marks, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "feed %s %q %s %s %q %s", req.Who.Party, p, req.Party, req.Device, req.Stream, req.Grant))
	m := &marks{q: q, owner: req.Who.Party, bind: sum[:]}
	return m, m.turn(ctx)
}

// turn takes a fresh key.
func (m *marks) turn(ctx context.Context) (err error) {
	rand.Read(m.salt[:])
	m.key, err = m.cipher(ctx, m.salt)
	return err
}

func (m *marks) cipher(ctx context.Context, salt [16]byte) (*seal.Cipher, error) {
	b, err := m.q.grants.FeedKey(ctx, salt)
	if err != nil {
		return nil, fmt.Errorf("make key of cursors: %w", err)
	}
	defer clear(b)
	var k seal.Key
	copy(k[:], b)
	defer k.Wipe()
	return seal.NewCipher(k), nil
}

func (m *marks) place() seal.Place { return seal.FieldPlace(m.owner, "feed", m.bind, "cursor") }

// cursor is at, for the reader.
func (m *marks) cursor(ctx context.Context, at *mark) (string, error) {
	if m.key.Spent() {
		if err := m.turn(ctx); err != nil {
			return "", err
		}
	}
	b := append(m.plain[:0], byte(at.phase))
	for _, v := range [...]uint64{at.epoch, uint64(at.pos), uint64(at.now), uint64(at.arrived), uint64(at.from), uint64(at.since), uint64(at.until)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = append(append(b, at.assignment[:]...), at.stream[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.time))
	m.plain = binary.AppendUvarint(b, at.given)
	m.box = append(append(m.box[:0], markVersion), m.salt[:]...)
	var err error
	if m.box, err = m.key.Seal(m.box, m.plain, m.place()); err != nil {
		return "", fmt.Errorf("seal cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(m.box), nil
}

// open reads a cursor.
func (m *marks) open(ctx context.Context, s string) (at mark, err error) {
	refused := holdfast.Errorf(holdfast.Invalid, "the cursor is damaged, or belongs to another question or another hub: ask without it")
	if len(s) > 4*markSize {
		return at, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= 1+len(m.salt)+seal.Overhead+markSize || b[0] != markVersion {
		return at, refused
	}
	c, err := m.cipher(ctx, [16]byte(b[1:17]))
	if err != nil {
		return at, err
	}
	p, err := c.Open(nil, b[17:], m.place())
	if err != nil || len(p) <= markSize || p[0] > byte(delayedPhase) {
		return at, refused
	}
	at.phase = phase(p[0])
	p = p[1:]
	var v [7]uint64
	for i := range v {
		v[i], p = binary.BigEndian.Uint64(p), p[8:]
	}
	at.epoch, at.pos, at.now, at.arrived = v[0], series.Pos(v[1]), int64(v[2]), int64(v[3])
	at.from, at.since, at.until = int64(v[4]), int64(v[5]), int64(v[6])
	p = p[copy(at.assignment[:], p):]
	p = p[copy(at.stream[:], p):]
	at.time, p = int64(binary.BigEndian.Uint64(p)), p[8:]
	n := 0
	if at.given, n = binary.Uvarint(p); n != len(p) {
		return at, refused
	}
	return at, nil
}
