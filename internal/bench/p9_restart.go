package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func p9() Figure {
	return Figure{
		ID:    "P9",
		Title: "Restart",
		What: "A hub starts on a journal of 1 GiB of which nothing is rolled, and is killed when it is ready; in each round on a fresh copy. In the journal are records of 1,000 devices, 20 readings each, " +
			"as the way in writes them when devices have many messages in flight; rolls were held back, which in service happen at 48 MiB. The time is from the start of the process until it answers. " +
			"Beside it, in the same round and on one core: to read the same journal and open every record's seal, and nothing else. The files are in the page cache for both",
		Measures: []Measure{
			{Key: "rate", What: "journal replayed in a second", Unit: Bytes, Goal: Goal{Least: 200e6}},
			{Key: "per_core", What: "journal replayed in a second of a core", Unit: Bytes},
			{Key: "bare", What: "bare read and decrypt in a second", Unit: Bytes},
			{Key: "share", What: "replay to bare", Unit: Times},
			{Key: "ready", What: "ready after", Unit: Seconds},
			{Key: "rss", What: "memory at most", Unit: Bytes, Goal: Goal{Most: 512 << 20}},
			{Key: "readings", What: "readings in the journal", Unit: Count},
		},
		Holdfast: restartOfHub,
	}
}

// Of P9.
const (
	journalBytes    = 1 << 30
	journalDevices  = 1000
	journalReadings = 20   // of a record
	journalInFlight = 8192 // records that wait for a sync
)

func restartOfHub(ctx context.Context, b *Bench) (_ *Side, err error) {
	g, err := b.Gateway(ctx, journalDevices)
	if err != nil {
		return nil, err
	}
	if err := g.Close(); err != nil {
		return nil, err
	}
	b.Say("writing a journal of 1 GiB")
	began := time.Now()
	filled, err := g.fillJournal(ctx)
	if err != nil {
		return nil, err
	}
	b.Say("wrote %s of journal, %.0f readings, in %s", Bytes.Format(float64(filled.bytes)), float64(filled.readings), time.Since(began).Round(100*time.Millisecond))
	return b.OwnSide(func(ctx context.Context, _ int) (Values, error) { return b.restart(ctx, g, filled) }, g.Discard), nil
}

// filling is what was put into a journal.
type filling struct {
	bytes, readings int64
	each            int       // readings of each device
	from, to        time.Time // their times
}

// fillJournal sends readings through the way in of a hub whose clocks stand still.
func (g *Gateway) fillJournal(ctx context.Context) (f filling, err error) {
	s, err := g.open(ctx)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	id, err := holdfast.ParseID[holdfast.DeviceID](g.self.ID)
	if err != nil {
		return f, err
	}
	gate, peer := s.Gate(), identity.Peer{Device: id}
	c := corpus.Corpus{Seed: 9, Devices: 1, Kinds: []corpus.Kind{corpus.Temperature}, From: Yesterday().AddDate(0, 0, -2), Every: time.Second, Steps: 150_000}
	samples := make([]holdfast.Sample, 0, c.Steps)
	for p := range c.Points() {
		samples = append(samples, holdfast.Sample{Stream: corpus.Temperature.Stream(), Time: p.Millis * 1e6, Timed: true, Value: holdfast.NumberValue(p.Value)})
	}
	slots := make(chan struct{}, journalInFlight)
	var mu sync.Mutex
	var failed error
	f.from, f.to = c.From.Add(-time.Second), c.To()
	for at := 0; ; at = (at + journalReadings) % (len(samples) - journalReadings) {
		for d := range journalDevices {
			slots <- struct{}{}
			batch := gate.Batch(ctx, peer, "")
			if err := batch.Add(corpus.Name(d), samples[at:at+journalReadings], ingest.Delivery{}); err != nil {
				return f, fmt.Errorf("fill journal: %w", err)
			}
			batch.Commit(func(err error) {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				<-slots
			})
		}
		f.each += journalReadings
		f.readings += journalDevices * journalReadings
		mu.Lock()
		err := errors.Join(failed, ctx.Err())
		mu.Unlock()
		if err != nil {
			return f, fmt.Errorf("fill journal: %w", err)
		}
		if f.bytes = s.JournalBytes(); f.bytes >= journalBytes {
			break
		}
	}
	for range journalInFlight {
		slots <- struct{}{}
	}
	f.bytes = s.JournalBytes()
	return f, failed
}

// open opens the hub, which is stopped, inside this process.
func (h *Hub) open(ctx context.Context) (*server.Server, error) {
	return server.Open(ctx, server.Config{Data: h.Data(), RootKey: filepath.Join(h.dir, "root.key")})
}

// restart measures one start on a copy, and the bare work beside it.
func (b *Bench) restart(ctx context.Context, g *Gateway, f filling) (_ Values, err error) {
	dir, err := b.Folder("restart")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(g.dir)); err != nil {
		return nil, fmt.Errorf("copy hub: %w", err)
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "root.key"), 0o600), os.Chmod(filepath.Join(dir, "data"), 0o700)); err != nil {
		return nil, err
	}
	copied := *g
	copied.Hub = &Hub{b: b, dir: dir}
	bare, err := copied.bareReplay(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := copied.Start(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	used, err := CPU(copied.PID())
	if err != nil {
		return nil, errors.Join(err, copied.Kill())
	}
	_, peak, err := Memory(copied.PID())
	if err == nil {
		err = copied.verifyReplay(ctx, f)
	}
	if err := errors.Join(err, copied.Kill()); err != nil {
		return nil, err
	}
	rate := float64(f.bytes) / took.Seconds()
	return Values{"rate": rate, "per_core": float64(f.bytes) / used.Seconds(), "bare": bare, "share": rate / bare, "ready": took.Seconds(), "rss": float64(peak), "readings": float64(f.readings)}, nil
}

// verifyReplay counts the readings of one device.
func (g *Gateway) verifyReplay(ctx context.Context, f filling) error {
	if err := g.connect(ctx); err != nil {
		return err
	}
	defer g.hangUp()
	const device = journalDevices / 3
	n := 0
	err := g.read(ctx, url.Values{"device": {g.ids[corpus.Name(device)]}, "stream": {corpus.Temperature.Stream()}, "every": {"1d"}, "agg": {"count"},
		"from": {f.from.Format(time.RFC3339)}, "to": {f.to.Format(time.RFC3339)}}, func(line []byte) error {
		var row struct{ Count int }
		err := json.Unmarshal(line, &row)
		n += row.Count
		return err
	})
	if err == nil && n != f.each {
		err = holdfast.Errorf(holdfast.Internal, "a device has %d of the %d readings that were durable", n, f.each)
	}
	return err
}

// bareReplay reads the journal of a hub that does not run, and opens every record.
// It returns the bytes of journal in a second.
func (g *Gateway) bareReplay(ctx context.Context) (rate float64, err error) {
	data := g.Data()
	db, err := catalog.Open(ctx, filepath.Join(data, "catalog"), catalog.Options{})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	holder, err := vault.OpenFileHolder(filepath.Join(g.dir, "root.key"), nil)
	if err != nil {
		return 0, err
	}
	keys, err := vault.Open(ctx, db, vault.Dir(filepath.Join(data, "keyring")), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		return 0, err
	}
	defer keys.Close()
	log, err := journal.OpenFile(filepath.Join(data, "journal"), journal.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	ciphers := map[seal.KeyID]*seal.Cipher{}
	var scratch []byte
	began := time.Now()
	for e, err := range log.Read(log.Start()) {
		if err != nil {
			return 0, err
		}
		h, box, err := series.ParseHeader(e.Data)
		if err != nil {
			return 0, err
		}
		c := ciphers[h.Key]
		if c == nil {
			if c, err = keys.JournalOpener(ctx, h.Assignment, h.Bucket, h.Key); err != nil {
				return 0, err
			}
			ciphers[h.Key] = c
		}
		if scratch, err = c.Open(scratch[:0], box, h.Place()); err != nil {
			return 0, fmt.Errorf("open journal record at position %d: %w", e.Pos, err)
		}
	}
	return float64(log.End()-log.Start()) / time.Since(began).Seconds(), nil
}
