package server

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/holdfast-iot/holdfast"
)

// sort says what a planted thing is.
type sort int

const (
	aValue  sort = iota // of a reading
	aStream             // its name
	aCount              // how many readings there are
	aLabel              // what a device is called
	aName               // of a party
	aReason             // words that somebody wrote for one party
	aWish               // a device's state, and what it was told to do
)

func (s sort) String() string {
	return [...]string{"a value", "a stream's name", "a number of readings", "a device's label", "a party's name", "a reason"}[s]
}

// plant is something of one party's that occurs nowhere else, so that wherever it
// comes out, it came from there.
type plant struct {
	whose string
	sort
	text   string // as it stands in an answer; or
	number float64
}

func (p plant) String() string {
	if p.text != "" {
		return fmt.Sprintf("%s of %s (%q)", p.sort, p.whose, p.text)
	}
	return fmt.Sprintf("%s of %s (%v)", p.sort, p.whose, p.number)
}

// streamsOf are the streams of a party's device: one of each type with a single
// reading, whose windows say it again, and one with so many readings as nothing else
// has.
func streamsOf(slug string, n int) (samples []holdfast.Sample, plants []plant) {
	at := time.Now().Add(-10 * time.Minute)
	one := func(name string, v holdfast.Value, shown ...plant) {
		samples = append(samples, holdfast.Sample{Stream: name, Time: at.UnixNano(), Timed: true, Value: v, Literal: v.Type() == holdfast.Number})
		plants = append(plants, plant{whose: slug, sort: aStream, text: name})
		for _, p := range shown {
			p.whose, p.sort = slug, aValue
			plants = append(plants, p)
		}
	}
	k := float64(n)
	diary := "what-" + slug + "-wrote"
	raw := "seen-by-" + slug + "-"
	one(pulseOf(slug), holdfast.NumberValue(71_234.8125+1024*k), plant{number: 71_234.8125 + 1024*k})
	one("steps-of-"+slug, holdfast.IntegerValue(7_700_000_117+int64(n)), plant{number: 7_700_000_117 + k})
	one("diary-of-"+slug, holdfast.TextValue(diary), plant{text: diary})
	one("scan-of-"+slug, holdfast.BytesValue([]byte(raw)), plant{text: base64.RawStdEncoding.EncodeToString([]byte(raw))}, plant{text: base64.RawURLEncoding.EncodeToString([]byte(raw))}, plant{text: raw})
	one("place-of-"+slug, holdfast.LocationValue(holdfast.Position{Latitude: 41.703125 + k/64, Longitude: -3.640625 - k/64, Altitude: math.NaN()}),
		plant{number: 41.703125 + k/64}, plant{number: -3.640625 - k/64})
	ticks := 1237 + 113*n
	name := "ticks-of-" + slug
	plants = append(plants, plant{whose: slug, sort: aStream, text: name}, plant{whose: slug, sort: aCount, text: fmt.Sprintf(`"readings":%d`, ticks)},
		plant{whose: slug, sort: aCount, text: fmt.Sprintf(`"rows":%d`, ticks)}, plant{whose: slug, sort: aCount, text: fmt.Sprintf(`"count":%d`, ticks)})
	for i := range ticks {
		samples = append(samples, holdfast.Sample{Stream: name, Time: at.Add(time.Duration(i) * time.Millisecond).UnixNano(), Timed: true, Value: holdfast.NumberValue(1), Literal: true})
	}
	return samples, plants
}

func pulseOf(slug string) string { return "pulse-of-" + slug }

// found returns the plants in what somebody was given, however it is written.
func found(plants []plant, given []byte) (hits []plant) {
	numbers := map[float64]bool{}
	for _, w := range bytes.FieldsFunc(given, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("+-._", r))
	}) {
		if f, err := strconv.ParseFloat(string(w), 64); err == nil {
			numbers[f] = true
		}
	}
	for _, p := range plants {
		if p.text != "" && bytes.Contains(given, []byte(p.text)) || p.text == "" && numbers[p.number] {
			hits = append(hits, p)
		}
	}
	return hits
}

// revealed is an answer with what is packed in it laid open: the files of a tar, the
// rows of a Parquet file.
func revealed(body []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(body, []byte("PAR1")):
		return parquetText(body)
	case len(body) > 262 && string(body[257:262]) == "ustar":
		out := bytes.Clone(body)
		for files := tar.NewReader(bytes.NewReader(body)); ; {
			_, err := files.Next()
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			if err != nil {
				return nil, fmt.Errorf("tar: %w", err)
			}
			file, err := io.ReadAll(files)
			if err != nil {
				return nil, fmt.Errorf("tar: %w", err)
			}
			if file, err = revealed(file); err != nil {
				return nil, err
			}
			out = append(append(out, '\n'), file...)
		}
	}
	return body, nil
}

func parquetText(file []byte) ([]byte, error) {
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	out := bytes.Clone(file)
	for _, g := range f.RowGroups() {
		rows := g.Rows()
		buf := make([]parquet.Row, 64)
		for {
			n, err := rows.ReadRows(buf)
			for _, r := range buf[:n] {
				for _, v := range r {
					out = fmt.Appendf(out, "\n%v", v)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("parquet: %w", err)
			}
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// TestPlantsAreFound: a search that finds nothing anywhere proves nothing.
func TestPlantsAreFound(t *testing.T) {
	_, plants := streamsOf("anna", 3)
	for text, want := range map[string]int{
		`{"value":74306.8125}`: 1, "74306.8125,x": 1, "7.43068125e+04": 1, "x=what-anna-wrote\n": 1, `{"readings":1576}`: 1, "place-of-anna": 1, "": 0,
		"74306.81": 0, "2026-01-02T03:04:05.1576Z": 0, `"size":1576`: 0,
	} {
		if hits := found(plants, []byte(text)); len(hits) != want {
			t.Errorf("in %q: %v", text, hits)
		}
	}
	sorts := map[sort]bool{}
	for _, p := range plants {
		sorts[p.sort] = true
	}
	if got := slices.Sorted(maps.Keys(sorts)); !slices.Equal(got, []sort{aValue, aStream, aCount}) {
		t.Errorf("planted: %v", got)
	}
}
