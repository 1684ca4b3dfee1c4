package server

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// oracle is what a stream must hold: the first of each repeat, in order of time,
// equal times in order of arrival.
type oracle struct{ rows []holdfast.Reading }

func (o *oracle) add(r holdfast.Reading) {
	if !slices.ContainsFunc(o.rows, r.Repeats) {
		o.rows = append(o.rows, r)
	}
}

func (o *oracle) sorted() []holdfast.Reading {
	out := slices.Clone(o.rows)
	slices.SortStableFunc(out, func(a, b holdfast.Reading) int {
		switch {
		case a.Time < b.Time:
			return -1
		case a.Time > b.Time:
			return 1
		}
		return 0
	})
	return out
}

// values of each type, the awkward ones first.
func awkward(t holdfast.ValueType) (out []holdfast.Value) {
	switch t {
	case holdfast.Number:
		for _, f := range []float64{math.NaN(), math.Float64frombits(0x7ff8000000000123), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1),
			math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1, 21.5, 1 << 53, -1e-300} {
			out = append(out, holdfast.NumberValue(f))
		}
	case holdfast.Integer:
		for _, i := range []int64{math.MinInt64, math.MaxInt64, 0, -1, 1<<53 + 1} {
			out = append(out, holdfast.IntegerValue(i))
		}
	case holdfast.Boolean:
		out = []holdfast.Value{holdfast.BooleanValue(false), holdfast.BooleanValue(true)}
	case holdfast.Text:
		for _, s := range []string{"", "a", "\x00", "Größe \U0001F980", string(make([]byte, 70_000))} {
			out = append(out, holdfast.TextValue(s))
		}
	case holdfast.Bytes:
		for _, b := range [][]byte{{}, {0}, {0xff, 0xfe}, make([]byte, 50_000)} {
			out = append(out, holdfast.BytesValue(b))
		}
	case holdfast.Location:
		for _, p := range []holdfast.Position{{Latitude: 52.52, Longitude: 13.405, Altitude: math.NaN()}, {}, {Latitude: math.Copysign(0, -1)},
			{Latitude: -90, Longitude: 180, Altitude: 8848.86}} {
			out = append(out, holdfast.LocationValue(p))
		}
	}
	return out
}

// Late, repeated, out of order, in the future, before 1970, any value: each reading
// is there once, bit for bit, whatever tail, roll, merge and restart make of it.
func TestEveryReadingOnceBitForBit(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 3))
	now := time.Now().UnixNano()
	times := []int64{0, -1, 1, -1e18, math.MinInt64, math.MaxInt64, now, now - 1, now + int64(time.Hour), now + int64(1000*time.Hour), now - int64(9000*time.Hour)}
	for range 20 {
		times = append(times, now-r.Int64N(int64(100*time.Hour)))
	}
	kinds := []holdfast.ValueType{holdfast.Number, holdfast.Integer, holdfast.Boolean, holdfast.Text, holdfast.Bytes, holdfast.Location}
	oracles := map[string]*oracle{}
	var sent []holdfast.Sample
	for _, k := range kinds {
		oracles[k.String()] = &oracle{}
	}
	steps := []string{"tail", "roll", "tail", "roll", "merge", "restart", "tail", "restart", "roll", "merge"}
	for n, step := range steps {
		for range 40 {
			k := kinds[r.IntN(len(kinds))]
			values := awkward(k)
			x := holdfast.Sample{Stream: k.String(), Timed: true, Time: times[r.IntN(len(times))], Value: values[r.IntN(len(values))]}
			if r.IntN(4) == 0 {
				x.Seq = uint64(r.IntN(3))
			}
			if r.IntN(3) == 0 && len(sent) > 0 { // a device sends again what it sent before
				x = sent[r.IntN(len(sent))]
			}
			h.mustSend(hers, x)
			sent = append(sent, x)
			want := holdfast.Reading{Time: x.Time, Seq: x.Seq, Value: x.Value}
			oracles[x.Stream].add(want)
		}
		switch step {
		case "roll":
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		case "merge":
			if err := h.series.Merge(t.Context()); err != nil {
				t.Fatal(err)
			}
		case "restart":
			h.halt()
			h.start()
		}
		for name, o := range oracles {
			want := o.sorted()
			if len(want) == 0 {
				continue // the draw has not come to this kind yet, so its stream isn't there
			}
			got, err := h.read(anna, hers, name)
			if err != nil {
				t.Fatalf("step %d (%s): %s: %v", n, step, name, err)
			}
			if len(got) != len(want) {
				t.Fatalf("step %d (%s): %s: %d readings, want %d", n, step, name, len(got), len(want))
			}
			for i := range got {
				if got[i].Time != want[i].Time || got[i].Seq != want[i].Seq || !got[i].Value.Same(want[i].Value) {
					t.Fatalf("step %d (%s): %s: reading %d is %d/%d, want %d/%d, same value: %v", n, step, name, i,
						got[i].Time, got[i].Seq, want[i].Time, want[i].Seq, got[i].Value.Same(want[i].Value))
				}
			}
		}
	}
}

// Readings without a time are stamped, in order of arrival, and never repeats.
func TestStampedReadingsAreNotRepeats(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	for i := range 100 {
		h.mustSend(hers, holdfast.Sample{Stream: "n", Value: holdfast.IntegerValue(int64(i / 10))})
		if i == 50 {
			h.halt()
			h.start()
		}
		if i == 70 {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.series.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := h.read(anna, hers, "n")
	if err != nil || len(got) != 100 {
		t.Fatalf("%d readings: %v", len(got), err)
	}
	for i, r := range got {
		if r.Value.Integer() != int64(i/10) || r.Mark&holdfast.Stamped == 0 {
			t.Fatalf("reading %d is %d, mark %d", i, r.Value.Integer(), r.Mark)
		}
	}
}

// The system's clock is set back, across a restart as well: readings go on in
// order of arrival, and the metric tells by how much.
func TestClockSetBack(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	// Set back by an hour is to have started an hour ahead.
	ahead := time.Now().Add(time.Hour).UnixNano()
	h.ingest = ingest.New(h.custody, h.grants, h.stores.vault, h.stores.journal, h.series, h.sessions, ingest.NewClock(ahead), ingest.Options{})
	for i := range 10 {
		h.mustSend(hers, holdfast.Sample{Stream: "n", Value: holdfast.IntegerValue(int64(i))})
	}
	h.halt()
	h.start()
	if behind := h.clock.Behind(); behind < 55*time.Minute || behind > time.Hour+time.Minute {
		t.Errorf("the clock is behind by %s", behind)
	}
	for i := range 10 {
		h.mustSend(hers, holdfast.Sample{Stream: "n", Value: holdfast.IntegerValue(int64(10 + i))})
	}
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.halt()
	h.start()
	for i := range 10 {
		h.mustSend(hers, holdfast.Sample{Stream: "n", Value: holdfast.IntegerValue(int64(20 + i))})
	}
	got, err := h.read(anna, hers, "n")
	if err != nil || len(got) != 30 {
		t.Fatalf("%d readings: %v", len(got), err)
	}
	for i, r := range got {
		if r.Value.Integer() != int64(i) || i > 0 && r.Time < got[i-1].Time {
			t.Errorf("reading %d is %d at %d", i, r.Value.Integer(), r.Time)
		}
	}
	// A device's own times are taken as they are.
	at := time.Now()
	h.mustSend(hers, number("timed", at, 5))
	if got, err := h.read(anna, hers, "timed"); err != nil || len(got) != 1 || got[0].Time != at.UnixNano() {
		t.Errorf("%v, %v", got, err)
	}
}

// The system's clock was set back by an hour: what was erased does not come back,
// though it carries a time at which that clock has not yet arrived again.
func TestErasureAfterTheClockWasSetBack(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.clock = ingest.NewClock(time.Now().Add(time.Hour).UnixNano())
	h.ingest = ingest.New(h.custody, h.grants, h.stores.vault, h.stores.journal, h.series, h.sessions, h.clock, ingest.Options{Hold: h.Server.erasure.Hold})
	sent := number("pulse", time.Now().Add(30*time.Minute), 60)
	h.mustSend(hers, sent)
	scope, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	h.erase(anna, scope)
	if err := h.send(hers, sent); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("sent again: %v", err)
	}
	if got, err := h.read(anna, hers, "pulse"); err == nil && len(got) > 0 {
		t.Errorf("%d readings came back", len(got))
	}
	h.mustSend(hers, number("pulse", time.Now().Add(61*time.Minute), 61))
}

// Nobody's device is refused with a reason, and nothing of what it sent is stored.
func TestUnclaimedDeviceLeavesNothing(t *testing.T) {
	h := newHouse(t)
	added, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "crate 17", Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	d := h.device(h.person("Anna").Party, "watch")
	nobodys := d
	nobodys.Device, nobodys.Assignment = added.Device.ID, added.Device.Assignment
	end := h.stores.journal.End()
	for i := range 20 {
		err := h.send(nobodys, holdfast.Sample{Stream: "stream-of-nobody-77", Value: holdfast.TextValue(fmt.Sprintf("word-of-nobody-%d", i))})
		if holdfast.KindOf(err) != holdfast.Denied {
			t.Fatalf("%v", err)
		}
	}
	if now := h.stores.journal.End(); now != end {
		t.Errorf("the journal grew from %d to %d", end, now)
	}
	h.mustSend(d, number("pulse", time.Now(), 60))
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	streams, err := h.custody.Streams(t.Context(), nobodys.Device)
	if err != nil || len(streams) > 0 {
		t.Errorf("%d streams: %v", len(streams), err)
	}
	h.halt()
	if hits := h.find(map[string][]byte{"stream": []byte("stream-of-nobody"), "value": []byte("word-of-nobody")}); len(hits) > 0 {
		t.Errorf("stored: %v", hits)
	}
	h.start()
	// Claimed, it sends.
	anna := h.person("Berta")
	got, err := h.custody.Claim(t.Context(), anna.Credential, anna.Party, added.ClaimCode)
	if err != nil {
		t.Fatal(err)
	}
	nobodys.Assignment = got.Assignment
	h.mustSend(nobodys, number("pulse", time.Now(), 61))
	if got, err := h.read(anna, nobodys, "pulse"); err != nil || len(got) != 1 {
		t.Errorf("%d readings: %v", len(got), err)
	}
}

// failing is a journal that refuses the n-th record from now.
type failing struct {
	journal.Log
	n int
}

func (f *failing) Append(record []byte, done func(journal.Pos, error)) {
	if f.n--; f.n == 0 {
		done(0, holdfast.Errorf(holdfast.Unavailable, "no room"))
		return
	}
	f.Log.Append(record, done)
}

// A gateway sends for two owners by QoS 2, and the disk has room for one of them:
// the connection ends, the gateway sends both again, and each is there once.
func TestHalfABatchIsNotTakenTwice(t *testing.T) {
	for _, fails := range []int{1, 2} {
		h := newHouse(t)
		anna, ben := h.person("Anna"), h.person("Ben")
		gateway := h.device(anna.Party, "gateway")
		children := map[string]identity.Peer{}
		for name, owner := range map[string]access.Principal{"first": anna, "second": ben} {
			d, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: name, Owner: owner.Party, Gateway: gateway.Device})
			if err != nil {
				t.Fatal(err)
			}
			children[name] = identity.Peer{Device: d.Device.ID, Assignment: d.Device.Assignment}
		}
		log := &failing{Log: h.stores.journal, n: fails}
		gate := ingest.New(h.custody, h.grants, h.stores.vault, log, h.series, h.sessions, h.clock, ingest.Options{})
		send := func() error {
			session, err := h.sessions.Open(t.Context(), ingest.DeviceClient(gateway), "g", false, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			b := gate.Batch(t.Context(), gateway, session.Name)
			for id, child := range []string{"first", "second"} {
				if slices.Contains(session.Received, uint16(id+1)) {
					continue // as the MQTT server does
				}
				if err := b.Add(child, []holdfast.Sample{{Stream: "n", Value: holdfast.IntegerValue(7)}}, ingest.Delivery{PacketID: uint16(id + 1), QoS2: true}); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error, 1)
			b.Commit(func(err error) { done <- err })
			err = <-done
			if cerr := h.sessions.Close(t.Context(), ingest.DeviceClient(gateway), "g", time.Hour); cerr != nil {
				t.Fatal(cerr)
			}
			return err
		}
		if err := send(); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Fatalf("record %d fails: %v", fails, err)
		}
		if err := send(); err != nil {
			t.Fatal(err)
		}
		for name, who := range map[string]access.Principal{"first": anna, "second": ben} {
			if got, err := h.read(who, children[name], "n"); err != nil || len(got) != 1 {
				t.Errorf("record %d fails: the %s child has %d readings: %v", fails, name, len(got), err)
			}
		}
	}
}
