package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// leftOn is a full disk on which some space is free again.
func leftOn(t *testing.T, disk string, free int64) (ballast string) {
	t.Helper()
	ballast = fillDisk(t, disk)
	info, err := os.Stat(ballast)
	if err == nil {
		err = os.Truncate(ballast, max(0, info.Size()-free))
	}
	if err != nil {
		t.Fatal(err)
	}
	return ballast
}

// notes sends n readings of 4 KiB that do not compress well, an hour apart, so that
// they come to lie in several cells.
func (h *house) notes(p identity.Peer, stream string, n int) {
	h.t.Helper()
	r := rand.NewChaCha8([32]byte{byte(n)})
	began := time.Now().Add(-time.Duration(n) * time.Hour)
	var samples []holdfast.Sample
	for i := range n {
		b := make([]byte, 2<<10)
		r.Read(b)
		samples = append(samples, holdfast.Sample{Stream: stream, Time: began.Add(time.Duration(i) * time.Hour).UnixNano(), Timed: true,
			Value: holdfast.TextValue(hex.EncodeToString(b))})
	}
	for some := range slices.Chunk(samples, 50) {
		h.mustSend(p, some...)
	}
}

// shows reads a stream. On a full disk a read may be refused, as it can't be put on
// the owner's record; what it does show is right.
func (h *house) shows(o owner, stream string, n int, full bool) {
	h.t.Helper()
	got, err := h.read(o.Principal, o.device, stream)
	if full && holdfast.KindOf(err) == holdfast.Unavailable && strings.Contains(err.Error(), "full") {
		return
	}
	if err != nil && n > 0 || len(got) != n {
		h.t.Errorf("%d readings of %s, not %d: %v", len(got), stream, n, err)
	}
}

// A disk that fills while journal is rolled, chunks are merged or an erasure runs:
// each says so, nothing is lost, nothing that is erased is shown, and each completes
// when there is space.
func TestDiskFillsInTheMiddle(t *testing.T) {
	for _, x := range []struct {
		name  string
		chunk bool // some is rolled before
		do    func(context.Context, *house) error
	}{
		{"rolling", false, func(ctx context.Context, h *house) error { return h.series.Roll(ctx) }},
		{"merging", true, func(ctx context.Context, h *house) error { return h.series.Merge(ctx) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			h, disk := onDisk(t, 160)
			anna := h.owner("Anna")
			for i := range 3 {
				stream := fmt.Sprintf("note%d", i)
				h.notes(anna.device, stream, 200)
				h.notes(anna.device, "all", 100)
				if x.chunk {
					if err := h.series.Roll(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			before, err := h.read(anna.Principal, anna.device, "all")
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			for _, free := range []int64{0, 64 << 10, 1 << 20} { // it gets further each time
				ballast := leftOn(t, disk, free)
				for range 2 {
					if err := x.do(t.Context(), h); err != nil {
						refused++
						if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "space") {
							t.Errorf("with %d bytes free it is %s: %v", free, holdfast.KindOf(err), err)
						}
					}
					h.shows(anna, "note1", 200, true)
					h.shows(anna, "all", len(before), true)
				}
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
			}
			if refused == 0 {
				t.Error("it never was short of space")
			}
			if err := x.do(t.Context(), h); err != nil {
				t.Errorf("when space is back: %v", err)
			}
			if litter, err := filepath.Glob(filepath.Join(h.dir, "*", "*", "*", "*.put")); err != nil || len(litter) > 0 {
				t.Errorf("left: %v %v", litter, err)
			}
			h.halt()
			h.start()
			for i := range 3 {
				h.shows(anna, fmt.Sprintf("note%d", i), 200, false)
			}
			h.shows(anna, "all", len(before), false)
		})
	}
}

// Erasures on a disk that is full once they are asked for: shown no more, said to be
// pending until they are done, not tried all the time, and done soon after there is
// space, with nobody asking again. What others have stays, and so what is left.
func TestErasureOnAFullDisk(t *testing.T) {
	h, disk := onDisk(t, 160)
	h.halt()
	said := &text{}
	h.logger = slog.New(slog.NewTextHandler(said, nil))
	h.start()
	left := map[string]int{"whole": 0, "stream": 0, "span": 50, "stays": 100, "late": 100}
	owners, pending := map[string]owner{}, map[string]holdfast.ErasureID{}
	for name := range left {
		owners[name] = h.owner(name)
		h.notes(owners[name].device, "note", 100)
		h.notes(owners[name].device, "other", 20)
	}
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate := h.Server.erasure
	ballast := leftOn(t, disk, 512<<10) // room to ask
	for name, o := range owners {
		var s holdfast.Scope
		var err error
		switch name {
		case "stays", "late":
			continue
		case "whole":
			s, err = h.custody.ScopeOfParty(t.Context(), o.Party)
		default:
			s, err = h.custody.ScopeOfStream(t.Context(), o.device.Device, "note")
		}
		if err != nil {
			t.Fatal(err)
		}
		if name == "span" {
			got, err := h.read(o.Principal, o.device, "note")
			if err != nil || len(got) != 100 {
				t.Fatalf("%d readings: %v", len(got), err)
			}
			s.Span = holdfast.Span{From: got[10].Time, To: got[59].Time}
		}
		e, err := gate.Ask(t.Context(), o.Principal, s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pending[name] = e.ID
	}
	fillDisk(t, disk)
	late, err := gate.Ask(t.Context(), owners["late"].Principal, h.scopeOf(owners["late"]))
	switch {
	case err == nil: // the catalog's files had room
		pending["late"], left["late"] = late.ID, 0
	case holdfast.KindOf(err) != holdfast.Unavailable:
		t.Errorf("an erasure that can't be written down is refused as %s: %v", holdfast.KindOf(err), err)
	}
	wholly := func(name string) bool { return name == "whole" || name == "late" && left[name] == 0 }
	check := func(full bool) (undone int) {
		for name, id := range pending {
			e, err := gate.Erasure(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if e.State != erasure.Done {
				undone++
			}
			if (e.State == erasure.Done) != (len(e.Certificate) > 0) {
				t.Errorf("%s: %s with a certificate of %d bytes", name, e.State, len(e.Certificate))
			}
		}
		for name, o := range owners {
			h.shows(o, "note", left[name], full)
			if !wholly(name) {
				h.shows(o, "other", 20, full)
			}
		}
		return undone
	}
	h.erasing()
	began := time.Now()
	for deadline := began.Add(time.Minute); strings.Count(said.String(), "not finished") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no erasure failed on a full disk")
		}
	}
	if check(true) == 0 {
		t.Error("all is done on a full disk")
	}
	// Three works, which are tried again every ten seconds.
	if n, most := strings.Count(said.String(), "not finished"), 3*(2+int(time.Since(began)/(10*time.Second))); n > most {
		t.Errorf("tried %d times", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	for _, id := range pending {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := gate.Wait(ctx, id); err != nil {
			t.Errorf("%v: %s", err, said)
		}
		cancel()
	}
	t.Logf("done %s after there was space", time.Since(began))
	if check(false) != 0 {
		t.Error("not all is done")
	}
}

// scopeOf is all of an owner.
func (h *house) scopeOf(o owner) holdfast.Scope {
	h.t.Helper()
	s, err := h.custody.ScopeOfParty(h.t.Context(), o.Party)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// A blob with holes is deleted, and punched again, on a full disk: that is how space
// comes back.
func TestBlobsGoOnAFullDisk(t *testing.T) {
	disk := mounted(t, 64)
	dir, err := blob.OpenDir(filepath.Join(disk, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ids := make([]holdfast.BlobID, 2)
	for i := range ids {
		ids[i] = holdfast.NewID[holdfast.BlobID]()
		if err := dir.Put(t.Context(), ids[i], bytes.Repeat([]byte("reading "), 1<<17)); err != nil {
			t.Fatal(err)
		}
		if err := dir.Punch(t.Context(), ids[i], 100<<10, 500<<10); err != nil {
			t.Fatal(err)
		}
	}
	fillDisk(t, disk)
	if err := dir.Punch(t.Context(), ids[0], 50<<10, 300<<10); err != nil { // a hole in its middle
		t.Errorf("punch: %v", err)
	}
	fillDisk(t, disk) // what that gave back
	for _, id := range ids {
		if err := dir.Delete(t.Context(), id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(disk, "blobs", "?", "?", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
