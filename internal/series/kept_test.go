package series

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func TestArrivalsGolden(t *testing.T) {
	at := []journal.Pos{0, 0, 0, 4096, 4096, 4256, 4200, 1 << 40, 1 << 40, 8}
	b := appendArrivals(nil, at)
	const file = "testdata/arrivals.hex"
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
		t.Errorf("arrivals are %s, in %s %s", got, file, want)
	}
	if got, err := parseArrivals(b, len(at)); err != nil || !slices.Equal(got, at) {
		t.Errorf("read %v, %v", got, err)
	}
	for n := range len(at) {
		if _, err := parseArrivals(b, n); err == nil {
			t.Errorf("read as %d rows", n)
		}
	}
}

func TestArrivalsAreReadAsWritten(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		at := make([]journal.Pos, 1+draw.IntN(200))
		pos := journal.Pos(draw.Uint64N(1 << draw.IntN(50)))
		for i := range at {
			switch draw.IntN(4) {
			case 0:
				pos += journal.Pos(8 * draw.IntN(1000))
			case 1:
				pos -= min(pos, journal.Pos(draw.IntN(500)))
			}
			at[i] = pos
		}
		if got, err := parseArrivals(appendArrivals(nil, at), len(at)); err != nil || !slices.Equal(got, at) {
			t.Fatalf("seed %d: wrote %v, read %v, %v", seed, at, got, err)
		}
	}
}

func FuzzArrivals(f *testing.F) {
	f.Add(appendArrivals(nil, []journal.Pos{8, 8, 16}), 3)
	f.Fuzz(func(t *testing.T, b []byte, rows int) {
		rows &= 1<<20 - 1
		if at, err := parseArrivals(b, rows); err == nil && len(at) != rows {
			t.Errorf("%d rows of %d", len(at), rows)
		}
	})
}
