package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

var noon = time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)

// memory is a bundle in memory: a sink, and a file system for Verify.
type memory struct{ fstest.MapFS }

func (m memory) Put(_ context.Context, name string, content []byte) error {
	m.MapFS[name] = &fstest.MapFile{Data: bytes.Clone(content)}
	return nil
}

type house struct {
	*querytest.House
	*archive.Archive
	anna access.Principal
	sent map[string][]holdfast.Sample // by stream
}

// build makes a hub on which Anna has a watch that sent values of every type, some
// late, some twice, some with times of long ago.
func build(t testing.TB) *house {
	h := &house{House: querytest.Build(t), sent: map[string][]holdfast.Sample{}}
	h.Archive = archive.New(h.Query, h.Custody, h.Register, h.Ledger)
	h.anna = h.Party("Anna Kowalska")
	h.Purpose("research")
	lab := h.Party("Sleep Lab")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: h.anna.Party})
	h.Device(custody.DeviceSpec{Label: "scale, unused", Owner: h.anna.Party})
	h.Grant(h.anna, grant.Spec{
		Recipient: lab.Party, Purpose: "research", AllDevices: true, Streams: []string{"number"}, Data: holdfast.Always, Until: h.Now().Add(time.Hour),
	})
	nan := math.Float64frombits(0x7ff8000000000099)
	for name, values := range map[string][]holdfast.Value{
		"number":   {holdfast.NumberValue(1.5), holdfast.NumberValue(nan), holdfast.NumberValue(math.Inf(1)), holdfast.NumberValue(math.Copysign(0, -1))},
		"integer":  {holdfast.IntegerValue(math.MinInt64), holdfast.IntegerValue(7), holdfast.IntegerValue(7)},
		"boolean":  {holdfast.BooleanValue(true), holdfast.BooleanValue(false)},
		"text":     {holdfast.TextValue("Grüße\n"), holdfast.TextValue("")},
		"bytes":    {holdfast.BytesValue([]byte{0, 1, 255}), holdfast.BytesValue(nil)},
		"location": {holdfast.LocationValue(holdfast.Position{Latitude: 52.5, Longitude: 13.4, Altitude: math.NaN()}), holdfast.LocationValue(holdfast.Position{Altitude: 8848.86})},
	} {
		for i, v := range values {
			s := querytest.At(name, noon.Add(time.Duration(i)*time.Second), v)
			s.Seq = uint64(i)
			h.sent[name] = append(h.sent[name], s)
		}
		old := querytest.At(name, time.Unix(0, -5), values[0]) // 1969
		h.sent[name] = slices.Insert(h.sent[name], 0, old)
		h.Send(watch, h.sent[name][1:]...)
		h.Send(watch, old, h.sent[name][1])
		if name < "c" {
			h.Roll()
		}
	}
	return h
}

func (h *house) export(t testing.TB) memory {
	t.Helper()
	m := memory{fstest.MapFS{}}
	if _, err := h.Export(t.Context(), h.anna, h.anna.Party, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func verified(t testing.TB, fsys fs.FS, trusted string) archive.Report {
	t.Helper()
	r, err := archive.Verify(fsys, trusted)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestExportIsWhatWasSent: bit for bit, once, with the records around it.
func TestExportIsWhatWasSent(t *testing.T) {
	h := build(t)
	m := h.export(t)
	got := map[string][]holdfast.Sample{}
	part := m.MapFS[bundle.PartName(1)].Data
	err := bundle.ReadPart(bytes.NewReader(part), int64(len(part)), func(s *bundle.Source, r holdfast.Reading) error {
		if s.DeviceName != "watch" || s.Type != r.Value.Type() {
			t.Error("a row of", s.DeviceName, s.Type)
		}
		got[s.Stream] = append(got[s.Stream], holdfast.Sample{Stream: s.Stream, Time: r.Time, Timed: true, Seq: r.Seq, Value: r.Value})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.sent, got, cmp.Comparer(holdfast.Value.Same)); diff != "" {
		t.Error(diff)
	}
	count := map[string]int{}
	for name, f := range m.MapFS {
		if strings.HasSuffix(name, ".ndjson") {
			for line := range bytes.Lines(f.Data) {
				var record map[string]any
				if err := json.Unmarshal(line, &record); err != nil {
					t.Error(name, err)
				}
				count[name]++
			}
		}
	}
	want := map[string]int{
		bundle.DevicesName: 2, bundle.StreamsName: 6, bundle.AssignmentsName: 2, bundle.PurposesName: 3, bundle.GrantsName: 1,
		bundle.DisclosuresName: 1, bundle.LedgerName: count[bundle.EventsName] + 2, bundle.EventsName: count[bundle.EventsName], bundle.BalanceName: 6,
	}
	if diff := cmp.Diff(want, count); diff != "" || count[bundle.EventsName] < 3 {
		t.Error(count[bundle.EventsName], "events;", diff)
	}
	if !bytes.Contains(m.MapFS[bundle.GrantsName].Data, []byte(`"recipient_name":"Sleep Lab"`)) {
		t.Error("the grant does not say to whom")
	}
	r := verified(t, m, h.Ledger.VerifierKey())
	if len(r.Faults) > 0 || !r.Trusted || r.Streams != 6 || r.Rows != 21 || r.Entries != uint64(count[bundle.EventsName]) || r.Owner != h.anna.Party.String() {
		t.Errorf("%+v", r)
	}
	if r := verified(t, m, ""); len(r.Faults) > 0 || r.Trusted || r.Signer != h.Ledger.VerifierKey() {
		t.Errorf("%+v", r)
	}
}

// TestStockToolsCheck: sha256sum of the operating system says the same.
func TestStockToolsCheck(t *testing.T) {
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Fatal("this test needs sha256sum (coreutils), by which owners check their bundle:", err)
	}
	h := build(t)
	dir := filepath.Join(t.TempDir(), "bundle")
	folder, err := archive.NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.Export(t.Context(), h.anna, h.anna.Party, folder)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(manifest string) (string, error) {
		cmd := exec.CommandContext(t.Context(), tool, "--strict", "-c", manifest)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, manifest := range []string{bundle.ManifestName, bundle.TagManifestName} {
		if out, err := check(manifest); err != nil {
			t.Error(manifest, err, out)
		}
	}
	if r := verified(t, os.DirFS(dir), h.Ledger.VerifierKey()); len(r.Faults) > 0 || r.ID != x.ID || r.Rows != x.Rows {
		t.Errorf("%+v %+v", r, x)
	}
	if !archive.IsBundle(os.DirFS(dir)) || archive.IsBundle(os.DirFS(h.Dir)) {
		t.Error("a bundle is not told from a folder")
	}
	if _, err := archive.NewFolder(dir); holdfast.KindOf(err) != holdfast.Conflict {
		t.Error("a folder in use was taken:", err)
	}
	name := filepath.Join(dir, bundle.EventsName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := check(bundle.ManifestName); err == nil || !strings.Contains(out, bundle.EventsName+": FAILED") {
		t.Error(out)
	}
}

// TestEveryBitCounts: a flipped bit in any file, a file too few and one too many
// are found and named.
func TestEveryBitCounts(t *testing.T) {
	h := build(t)
	whole := h.export(t)
	names := func(faults []string) string { return strings.Join(faults, "\n") }
	for name, f := range whole.MapFS {
		for _, at := range []int{0, len(f.Data) / 2, len(f.Data) - 1} {
			m := memory{fstest.MapFS{}}
			for n, g := range whole.MapFS {
				m.MapFS[n] = g
			}
			b := bytes.Clone(f.Data)
			b[at] ^= 0x10
			m.MapFS[name] = &fstest.MapFile{Data: b}
			r, err := archive.Verify(m, "")
			found := slices.ContainsFunc(r.Faults, func(s string) bool { return strings.HasPrefix(s, name+": ") })
			switch {
			case name == bundle.TagManifestName: // its own hash is in the signature
				found = strings.Contains(names(r.Faults), bundle.SignatureName+": ")
			case name == bundle.DeclarationName && err != nil, name == bundle.InfoName && err != nil:
				found = holdfast.KindOf(err) == holdfast.Invalid
			}
			if !found {
				t.Errorf("%s at %d: %v %s", name, at, err, names(r.Faults))
			}
		}
		m := memory{fstest.MapFS{}}
		for n, g := range whole.MapFS {
			if n != name {
				m.MapFS[n] = g
			}
		}
		if r, err := archive.Verify(m, ""); err == nil && !strings.Contains(names(r.Faults), name+": is missing") {
			t.Errorf("without %s: %s", name, names(r.Faults))
		}
	}
	for _, name := range []string{"data/extra.txt", "notes.txt"} {
		whole.MapFS[name] = &fstest.MapFile{Data: []byte("x")}
		if r := verified(t, whole, ""); names(r.Faults) != name+": is in no manifest" {
			t.Error(names(r.Faults))
		}
		delete(whole.MapFS, name)
	}
}

// TestForgery: who changes readings and all hashes, but has not the hub's key, is
// found by the signature; who also has no balance, by the balance.
func TestForgery(t *testing.T) {
	h := build(t)
	m := h.export(t)
	m.MapFS[bundle.PartName(1)] = &fstest.MapFile{Data: fewer(t, m.MapFS[bundle.PartName(1)].Data)}
	m.hash()
	r := verified(t, m, h.Ledger.VerifierKey())
	faults := strings.Join(r.Faults, "\n")
	if r.Signer != "" || !strings.Contains(faults, "signature.note: is not for this tagmanifest") || !strings.Contains(faults, "data/balance.ndjson: stream ") {
		t.Errorf("%+v", r)
	}
	other := querytest.Build(t)
	if r := verified(t, h.export(t), other.Ledger.VerifierKey()); r.Signer != "" || len(r.Faults) != 1 {
		t.Errorf("another hub's key: %+v", r)
	}
}

// hash writes the manifests anew.
func (m memory) hash() {
	var payload, tags []bundle.File
	for name, f := range m.MapFS {
		if bundle.IsPayload(name) {
			payload = append(payload, bundle.FileOf(name, f.Data))
		}
	}
	m.MapFS[bundle.ManifestName] = &fstest.MapFile{Data: bundle.AppendManifest(nil, payload)}
	for _, name := range []string{bundle.DeclarationName, bundle.InfoName, bundle.PackageName, bundle.ReadmeName, bundle.ManifestName} {
		tags = append(tags, bundle.FileOf(name, m.MapFS[name].Data))
	}
	m.MapFS[bundle.TagManifestName] = &fstest.MapFile{Data: bundle.AppendManifest(nil, tags)}
}

// fewer returns a part without its first row.
func fewer(t *testing.T, part []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	p := bundle.NewPart(&out)
	n := 0
	err := bundle.ReadPart(bytes.NewReader(part), int64(len(part)), func(s *bundle.Source, r holdfast.Reading) error {
		if n++; n == 1 {
			return nil
		}
		return p.Append(s, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTar(t *testing.T) {
	h := build(t)
	var stream bytes.Buffer
	out := archive.NewTar(&stream, "anna")
	if _, err := h.Export(t.Context(), h.anna, h.anna.Party, out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	m := memory{fstest.MapFS{}}
	if err := archive.Untar(t.Context(), bytes.NewReader(stream.Bytes()), m); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, m, ""); len(r.Faults) > 0 || r.Rows != 21 {
		t.Errorf("%+v", r)
	}
	for _, cut := range []int{stream.Len() / 4, stream.Len() / 2, stream.Len() - 4096} {
		m := memory{fstest.MapFS{}}
		err := archive.Untar(t.Context(), bytes.NewReader(stream.Bytes()[:cut]), m)
		if r, verr := archive.Verify(m, ""); err == nil && verr == nil && len(r.Faults) == 0 {
			t.Error("a stream that broke off is a whole bundle")
		}
	}
	for _, h := range []tar.Header{
		{Name: "x/../../etc/passwd", Typeflag: tar.TypeReg}, {Name: "x//etc/passwd", Typeflag: tar.TypeReg}, {Name: "plain", Typeflag: tar.TypeReg},
		{Name: "x/a\\b", Typeflag: tar.TypeReg}, {Name: "x/link", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}, {Name: "x/dir", Typeflag: tar.TypeDir},
	} {
		var evil bytes.Buffer
		w := tar.NewWriter(&evil)
		if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
			t.Fatal(err)
		}
		m := memory{fstest.MapFS{}}
		if err := archive.Untar(t.Context(), &evil, m); holdfast.KindOf(err) != holdfast.Invalid || len(m.MapFS) > 0 {
			t.Errorf("%q was taken: %v", h.Name, err)
		}
	}
	var large bytes.Buffer
	w := tar.NewWriter(&large)
	if err := w.WriteHeader(&tar.Header{Name: "x/large", Typeflag: tar.TypeReg, Size: bundle.MaxPart + 1}); err != nil {
		t.Fatal(err)
	}
	if err := archive.Untar(t.Context(), &large, memory{fstest.MapFS{}}); holdfast.KindOf(err) != holdfast.TooLarge {
		t.Error("a large file was taken:", err)
	}
}

// TestWhoExports: the owner in person, and the operator its own.
func TestWhoExports(t *testing.T) {
	h := build(t)
	bob := h.Party("Bob")
	program := h.Program(h.anna.Party, "research")
	none := memory{fstest.MapFS{}}
	for name, c := range map[string]struct {
		who   access.Principal
		party holdfast.PartyID
	}{
		"another owner":      {bob, h.anna.Party},
		"the operator":       {h.Admin, h.anna.Party},
		"a program of hers":  {program, h.anna.Party},
		"of nobody":          {bob, holdfast.NewID[holdfast.PartyID]()},
		"of no one":          {bob, holdfast.PartyID{}},
		"the operator's own": {h.Program(h.Acme, holdfast.Operation), h.Acme},
	} {
		if _, err := h.Export(t.Context(), c.who, c.party, none); holdfast.KindOf(err) != holdfast.Denied || len(none.MapFS) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	van := h.Device(custody.DeviceSpec{Label: "van", Subject: bob.Party})
	press := h.Device(custody.DeviceSpec{Label: "press"})
	h.Send(van, querytest.At("speed", noon, holdfast.NumberValue(50)))
	h.Send(press, querytest.At("load", noon, holdfast.NumberValue(1)))
	m := memory{fstest.MapFS{}}
	x, err := h.Export(t.Context(), h.Admin, h.Acme, m)
	if err != nil || x.Rows != 1 || x.Withheld != 1 || x.Devices != 1 {
		t.Errorf("%+v %v", x, err)
	}
	if r := verified(t, m, ""); len(r.Faults) > 0 || r.Withheld != "1" {
		t.Errorf("%+v", r)
	}
	// Bob's own is the van's readings, though the van is not his.
	m = memory{fstest.MapFS{}}
	if x, err := h.Export(t.Context(), bob, bob.Party, m); err != nil || x.Rows != 1 || x.Streams != 1 {
		t.Errorf("%+v %v", x, err)
	}
	for name, f := range m.MapFS {
		if bytes.Contains(f.Data, []byte("press")) || bytes.Contains(f.Data, []byte("Anna")) {
			t.Error(name, "holds what is another's")
		}
	}
	// An owner of nothing gets a bundle that says so.
	carol := h.Party("Carol")
	m = memory{fstest.MapFS{}}
	if x, err := h.Export(t.Context(), carol, carol.Party, m); err != nil || x.Rows != 0 {
		t.Errorf("%+v %v", x, err)
	}
	if r := verified(t, m, ""); len(r.Faults) > 0 {
		t.Errorf("%+v", r)
	}
}

// TestBrokenSink: an export that its reader leaves has no manifest, and what left
// is on record.
func TestBrokenSink(t *testing.T) {
	h := build(t)
	m := &breaking{memory: memory{fstest.MapFS{}}, after: 4}
	if _, err := h.Export(t.Context(), h.anna, h.anna.Party, m); err == nil {
		t.Fatal("no error")
	}
	if r, err := archive.Verify(m, ""); err == nil && len(r.Faults) == 0 {
		t.Error("a part of a bundle is a whole one")
	}
	all, err := h.Register.Disclosures(t.Context(), h.anna.Party)
	if err != nil || len(all) != 1 || all[0].Rows != 21 || !all[0].Complete {
		t.Errorf("%+v %v", all, err)
	}
}

type breaking struct {
	memory
	after int
}

func (b *breaking) Put(ctx context.Context, name string, content []byte) error {
	if b.after--; b.after < 0 {
		return io.ErrShortWrite
	}
	return b.memory.Put(ctx, name, content)
}

type discard struct{ bytes int }

func (d *discard) Put(_ context.Context, _ string, content []byte) error {
	d.bytes += len(content)
	return nil
}

// BenchmarkExport exports an owner's 8 streams of 128 k readings.
func BenchmarkExport(b *testing.B) {
	h := querytest.Build(b)
	a := archive.New(h.Query, h.Custody, h.Register, h.Ledger)
	anna := h.Party("Anna")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	draw := rand.New(rand.NewPCG(1, 2))
	const streams, rows = 8, 128_000
	for s := range streams {
		for i := 0; i < rows; {
			var batch []holdfast.Sample
			for range 8000 {
				at := noon.Add(time.Duration(i)*100*time.Millisecond + time.Duration(draw.IntN(1e6)))
				batch = append(batch, querytest.At(fmt.Sprint("stream", s), at, holdfast.NumberValue(math.Round(2000+500*draw.NormFloat64())/100)))
				i++
			}
			h.Send(watch, batch...)
		}
	}
	h.Roll()
	for b.Loop() {
		var d discard
		x, err := a.Export(b.Context(), anna, anna.Party, &d)
		if err != nil || x.Rows != streams*rows {
			b.Fatal(x, err)
		}
		b.ReportMetric(float64(d.bytes)/float64(x.Rows), "B/row")
	}
	b.ReportMetric(float64(streams*rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
