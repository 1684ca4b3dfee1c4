package backup

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// What is believed of the other side, be it a hub or a folder, so that it can't make
// this one take more memory than it has.
const (
	maxPieces  = 1 << 20   // of one backup
	maxSegment = 128 << 20 // bytes of a segment; docs/format/segment.md says 64 MiB
	maxTally   = tallySize<<23 + int64(len(tallyMagic))
	maxPlan    = 128 << 20 // bytes of a plan in JSON
)

// Plan is a backup that has begun: what it consists of, in order.
type Plan struct {
	ID    string    `json:"id"`
	Hub   string    `json:"hub"`
	Key   []byte    `json:"key"` // names and tags hang on it; it opens nothing
	Began time.Time `json:"began"`
	Parts []Part    `json:"parts"`
}

// Bytes is how much all parts have.
func (p *Plan) Bytes() (n int64) {
	for _, part := range p.Parts {
		n += part.Size
	}
	return n
}

// ReadPlan reads a plan in JSON, as a hub answers with it.
func ReadPlan(r io.Reader) (p Plan, err error) { return readPlan(r, maxPlan, maxPieces) }

func readPlan(r io.Reader, most int64, parts int) (p Plan, err error) {
	limited := &io.LimitedReader{R: r, N: most}
	in := json.NewDecoder(limited)
	defer func() {
		if err == nil {
			err = p.sound()
		} else if limited.N <= 0 {
			err = errTooMany
		} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = holdfast.Errorf(holdfast.Unavailable, "the hub's answer broke off: run the backup again")
		} else if holdfast.KindOf(err) == holdfast.Internal {
			err = fmt.Errorf("%w: %w", errNotAPlan, err)
		}
	}()
	if err := expect(in, '{'); err != nil {
		return p, err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return p, err
		}
		var to any = new(json.RawMessage)
		switch key {
		case "id":
			to = &p.ID
		case "hub":
			to = &p.Hub
		case "key":
			to = &p.Key
		case "began":
			to = &p.Began
		case "parts":
			if p.Parts, err = readParts(in, parts); err != nil {
				return p, err
			}
			continue
		}
		if err := in.Decode(to); err != nil {
			return p, err
		}
	}
	return p, expect(in, '}')
}

func readParts(in *json.Decoder, most int) (all []Part, err error) {
	if err := expect(in, '['); err != nil {
		return nil, err
	}
	for in.More() {
		var part Part
		if err := in.Decode(&part); err != nil {
			return nil, err
		}
		if len(all) == most {
			return nil, errTooMany
		}
		if !soundPart(part) {
			return nil, errNotAPlan
		}
		all = append(all, part)
	}
	return all, expect(in, ']')
}

func expect(in *json.Decoder, d json.Delim) error {
	t, err := in.Token()
	if err == nil && t != d {
		err = errNotAPlan
	}
	return err
}

var (
	errNotAPlan = holdfast.Errorf(holdfast.Invalid, "the hub does not answer with the plan of a backup: is it one, of this version?")
	errTooMany  = holdfast.Errorf(holdfast.TooLarge, "the backup has more than %d pieces", maxPieces)
)

// soundPart reports whether a part is one that there can be. What it says ends up in
// names of files, sizes of buffers and lines of the list.
func soundPart(p Part) bool {
	if p.Tag != "" && (len(p.Tag) != tagLength || !is32(p.Tag)) {
		return false
	}
	switch p.Kind {
	case KindCatalog:
		return p.ID == "" && p.Size > 0 && p.Size <= PieceSize
	case KindSegment:
		blob, ranges, ok := strings.Cut(p.ID, ".")
		return ok && len(blob) == nameLength && is32(blob) && len(ranges) == 24 && strings.Trim(ranges, "0123456789abcdef") == "" &&
			p.Tag == "" && p.Size > 0 && p.Size <= maxSegment
	case KindTally:
		return p.ID == "" && p.Size <= maxTally && p.Size >= int64(len(tallyMagic)) && (p.Size-int64(len(tallyMagic)))%tallySize == 0
	}
	return false
}

// sound is nil for a plan that there can be.
func (p *Plan) sound() error {
	year := p.Began.UTC().Year()
	if len(p.ID) != nameLength || !is32(p.ID) || !isHub(p.Hub) || len(p.Key) != sha256.Size || year < 2000 || year > 9999 || len(p.Parts) == 0 {
		return errNotAPlan
	}
	if len(p.Parts) > maxPieces {
		return errTooMany
	}
	last := ""
	for _, part := range p.Parts {
		// The kinds come in their order, the tally once and at the end.
		if !soundPart(part) || (part.Tag == "") != (part.Kind == KindSegment) || order(part.Kind) < order(last) || last == KindTally {
			return errNotAPlan
		}
		last = part.Kind
	}
	if last != KindTally {
		return errNotAPlan
	}
	return nil
}

// isHub reports whether a text can be the id of a hub.
func isHub(text string) bool { return len(text) >= 1 && len(text) <= 64 && is32(text) }
