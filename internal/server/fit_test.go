package server

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/muktihari/fit/decoder"
	"github.com/muktihari/fit/profile/mesgdef"
	"github.com/muktihari/fit/profile/untyped/mesgnum"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// recording reads the real recording that comes with the module that decodes it:
// 99,998 seconds of a watch.
func recording(t *testing.T) []*mesgdef.Record {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/muktihari/fit").CombinedOutput()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("the module github.com/muktihari/fit is not in the module cache (go mod download): %v %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "testdata", "big_activity.fit"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := decoder.New(bytes.NewReader(b)).Decode()
	if err != nil {
		t.Fatal(err)
	}
	var records []*mesgdef.Record
	for i := range file.Messages {
		if m := &file.Messages[i]; m.Num == mesgnum.Record {
			records = append(records, mesgdef.NewRecord(m))
		}
	}
	if len(records) != 99_998 {
		t.Fatalf("the recording has %d records", len(records))
	}
	return records
}

// what a record says, by stream.
func told(r *mesgdef.Record) map[string]float64 {
	return map[string]float64{
		"heart_rate": float64(r.HeartRate), "cadence": float64(r.Cadence), "temperature": float64(r.Temperature),
		"altitude": r.EnhancedAltitudeScaled(), "speed": r.EnhancedSpeedScaled(), "distance": r.DistanceScaled(),
	}
}

// pack is some records as SenML. skip leaves out what was sent otherwise.
func pack(records []*mesgdef.Record, skip string) []byte {
	var b bytes.Buffer
	for i, r := range records {
		sep := ","
		if i == 0 {
			sep = "["
		}
		fmt.Fprintf(&b, `%s{"bt":%d,"n":"position","hf_loc":[%v,%v]}`, sep, r.Timestamp.Unix(), r.PositionLatDegrees(), r.PositionLongDegrees())
		for stream, v := range told(r) {
			if stream != skip {
				fmt.Fprintf(&b, `,{"n":%q,"v":%v}`, stream, v)
			}
		}
	}
	b.WriteByte(']')
	return b.Bytes()
}

// A real recording goes in over MQTT with many publishes in flight, comes out bit
// for bit from tail, segments and a restarted hub, leaves as a bundle, and is
// erased with a certificate.
func TestRealRecording(t *testing.T) {
	records := recording(t)
	single := 5_000 // heart rates that come one by one
	if long() {
		single = len(records)
	}
	h := newHouse(t)
	anna := h.person("Anna")
	watch := h.enrolled(anna.Party, "watch")
	at, end := h.serve()
	c := watch.mqtt(t, at)
	began := time.Now()
	sendAll(t, c, func(yield func(topic string, payload []byte) bool) {
		for _, r := range records[:single] {
			if !yield("data/heart_rate", fmt.Appendf(nil, `{"t":%d,"v":%d}`, r.Timestamp.Unix(), r.HeartRate)) {
				return
			}
		}
		for i := 0; i < len(records); i += 60 {
			part, skip := records[i:min(i+60, len(records))], ""
			if i+60 <= single && i%600 != 0 { // now and then a heart rate comes twice
				skip = "heart_rate"
			}
			if !yield("data", pack(part, skip)) {
				return
			}
		}
	})
	readings := 7 * len(records)
	t.Logf("%d readings in %d publishes, sent and acknowledged in %s", readings, single+(len(records)+59)/60, time.Since(began).Round(time.Millisecond))
	h.holds(anna, watch, records)
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.holds(anna, watch, records)
	if err := h.series.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	end()
	h.holds(anna, watch, records)
	segments, catalog := int64(0), int64(0)
	for path, b := range snapshotOf(t, h.dir) {
		switch {
		case strings.Contains(path, "/"+segmentsDir+"/"):
			segments += int64(len(b))
		case strings.Contains(path, "/"+catalogDir+"/"):
			catalog += int64(len(b))
		}
	}
	t.Logf("on disk: segments %d bytes, catalog %d bytes: %.3f bytes a record of 7 readings, %.3f with the catalog",
		segments, catalog, float64(segments)/float64(len(records)), float64(segments+catalog)/float64(len(records)))
	h.leaves(anna, uint64(readings))
	h.goes(anna, watch)
}

// sendAll publishes with as many in flight as the hub allows.
func sendAll(t *testing.T, c *paho.Client, each func(func(string, []byte) bool)) {
	t.Helper()
	type message struct {
		topic   string
		payload []byte
	}
	queue := make(chan message)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var senders sync.WaitGroup
	for range 60 {
		senders.Go(func() {
			for m := range queue {
				if _, err := c.Publish(ctx, &paho.Publish{QoS: 1, Topic: m.topic, Payload: m.payload}); err != nil && ctx.Err() == nil {
					t.Errorf("publish: %v", err)
					stop()
				}
			}
		})
	}
	each(func(topic string, payload []byte) bool {
		select {
		case queue <- message{topic, payload}:
			return true
		case <-ctx.Done():
			return false
		}
	})
	close(queue)
	senders.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// holds expects the recording, bit for bit.
func (h *house) holds(who access.Principal, d *thing, records []*mesgdef.Record) {
	h.t.Helper()
	want := map[string][]float64{}
	for _, r := range records {
		for stream, v := range told(r) {
			want[stream] = append(want[stream], v)
		}
	}
	for stream, values := range want {
		got, err := h.read(who, d.Peer, stream)
		if err != nil || len(got) != len(records) {
			h.t.Fatalf("%s: %d readings: %v", stream, len(got), err)
		}
		for i, r := range got {
			if r.Time != records[i].Timestamp.UnixNano() || !r.Value.Same(holdfast.NumberValue(values[i])) {
				h.t.Fatalf("%s: reading %d is %v at %d, want %v", stream, i, r.Value.Number(), r.Time, values[i])
			}
		}
	}
	got, err := h.read(who, d.Peer, "position")
	if err != nil || len(got) != len(records) {
		h.t.Fatalf("position: %d readings: %v", len(got), err)
	}
	for i, r := range got {
		p := r.Value.Position()
		if r.Time != records[i].Timestamp.UnixNano() || p.Latitude != records[i].PositionLatDegrees() || p.Longitude != records[i].PositionLongDegrees() || !math.IsNaN(p.Altitude) {
			h.t.Fatalf("position %d is %+v at %d", i, p, r.Time)
		}
	}
}

// leaves exports the owner and checks the bundle without the hub.
func (h *house) leaves(who access.Principal, rows uint64) {
	h.t.Helper()
	dir := filepath.Join(h.t.TempDir(), "bundle")
	sink, err := archive.NewFolder(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	made, err := archive.New(h.query, h.custody, h.grants, h.ledger).Export(h.t.Context(), who, who.Party, sink)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		h.t.Fatal(err)
	}
	if made.Rows != rows {
		h.t.Errorf("%d rows were exported, want %d", made.Rows, rows)
	}
	h.t.Logf("bundle: %d files, %d bytes, %d rows", made.Files, made.Bytes, made.Rows)
}

// goes erases the owner, as the running hub does it.
func (h *house) goes(who access.Principal, d *thing) {
	h.t.Helper()
	scope, err := h.custody.ScopeOfParty(h.t.Context(), who.Party)
	if err != nil {
		h.t.Fatal(err)
	}
	began := time.Now()
	certificate := h.erase(who, scope)
	h.t.Logf("erased in %s", time.Since(began).Round(time.Millisecond))
	c, err := erasure.VerifyCertificate(certificate, h.ledger.VerifierKey())
	if err != nil || c.Opened.Party != who.Party {
		h.t.Errorf("certificate: %+v %v", c, err)
	}
	if got, err := h.read(who, d.Peer, "heart_rate"); err == nil {
		h.t.Errorf("%d readings of the erased owner are read", len(got))
	}
	for path, b := range snapshotOf(h.t, filepath.Join(h.dir, segmentsDir)) {
		if len(bytes.Trim([]byte(b), "\x00")) > 4096 {
			h.t.Errorf("%s still holds %d bytes", path, len(b))
		}
	}
}
