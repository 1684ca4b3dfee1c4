package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
	"github.com/holdfast-iot/holdfast/internal/server"
)

func p5() Figure {
	size := func(key, what, peer string, most float64) Measure {
		return Measure{Key: key, What: what, Unit: Bytes, Peer: peer, Goal: Goal{Most: most}, Why: diskMissed}
	}
	const mixed, slow = "a point, mixed", "a point, slow devices"
	return Figure{
		ID:    "P5",
		Title: "Bytes on disk",
		What: "What readings come to when they are flushed and merged. Mixed: 50 devices at a reading a second of seven sensors each: temperature, heart rate, latitude, " +
			"longitude, state, counter, and a 32-bit float of noise; with clock jitter, each sensor on its own, and gaps. Slow: 50 devices at one reading a minute for a day, " +
			"with a roll each five minutes as it would be. Counted are all files of a fresh data folder, the catalog and the keyring with every device included, sealed; " +
			"only the journal's files are shown apart, which are allocated whole, hold nothing after a roll and do not grow. Of a file its length counts, or the space it takes if that is less. " +
			"VictoriaMetrics keeps times in milliseconds, no texts (states are numbers there) and about 15 digits of a float; of PostgreSQL the table (series, ts, value) and its index on series and time count, " +
			"not its log nor its own catalog",
		Measures: []Measure{
			size("mixed", mixed, "VictoriaMetrics", 0.95), size("mixed", mixed, "InfluxDB", 1.0/5), size("mixed", mixed, "PostgreSQL", 1.0/80),
			size("slow", slow, "VictoriaMetrics", 0.95), size("slow", slow, "InfluxDB", 1.0/5), size("slow", slow, "PostgreSQL", 1.0/80),
			{Key: "mixed_segments", What: "of the mixed: segments", Unit: Bytes},
			{Key: "slow_segments", What: "of the slow: segments", Unit: Bytes},
			{Key: "slow_readings", What: "a point, slow devices, growth since each had sent once", Unit: Bytes, Peer: "VictoriaMetrics", Goal: Goal{Most: 0.95}},
			{Key: "devices", What: "a device that sends, once", Unit: Bytes},
			{Key: "journal", What: "journal, whole", Unit: Bytes},
		},
		Holdfast: diskOfHub,
	}
}

func diskMissed(r *Result) string {
	return fmt.Sprintf("Of a mixed point the segments take %s and the rest of the folder %s; a 32-bit float of noise can't be pressed below 3.3 B, and the jitter of its time not below 0.35 B. "+
		"A hub with %d devices declared and no readings takes %s, a device that sends %s more, once: a day of one reading a minute is little against that, and growth since each had sent once is %s a point.",
		Bytes.Format(r.Own("mixed_segments").Median), Bytes.Format(r.Own("mixed").Median-r.Own("mixed_segments").Median),
		DiskDevices, Bytes.Format(r.Own("slow_empty").Median), Bytes.Format(r.Own("devices").Median), Bytes.Format(r.Own("slow_readings").Median))
}

// Of P5.
const (
	DiskDevices = 50
	rollsOfDay  = 288 // one each five minutes
)

// MixedCorpus is what all sides are sent in a round.
func MixedCorpus(round int) corpus.Corpus {
	return corpus.Corpus{Seed: 500 + uint64(round), Devices: DiskDevices, Kinds: corpus.Mixed(), From: Yesterday(), Every: time.Second, Steps: 7200, Gaps: true}
}

// SlowCorpus is a day of devices that send once a minute.
func SlowCorpus(round int) corpus.Corpus {
	return corpus.Corpus{Seed: 550 + uint64(round), Devices: DiskDevices, Kinds: []corpus.Kind{corpus.Temperature}, From: Yesterday(), Every: time.Minute, Steps: 24 * 60}
}

// First is a step before the corpus begins: after it every stream exists.
func First(c corpus.Corpus) corpus.Corpus {
	c.Steps, c.From = 1, c.From.Add(-c.Every)
	return c
}

func diskOfHub(ctx context.Context, b *Bench) (*Side, error) {
	round := func(ctx context.Context, round int) (Values, error) {
		v := Values{}
		if err := b.mixedOnDisk(ctx, round, v); err != nil {
			return nil, err
		}
		return v, b.slowOnDisk(ctx, round, v)
	}
	return b.OwnSide(round, nil), nil
}

func (b *Bench) mixedOnDisk(ctx context.Context, round int, v Values) (err error) {
	c := MixedCorpus(round)
	g, err := b.Gateway(ctx, c.Devices)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Discard()) }()
	load := c.Load(corpus.Texts, LinesPerRequest)
	if _, err := Pour(ctx, LineSenders, len(load.Bodies), func(ctx context.Context, i int) error { return g.Write(ctx, load.Bodies[i]) }); err != nil {
		return err
	}
	if err := g.Stop(); err != nil {
		return err
	}
	if err := g.within(ctx, func(s *server.Server) error { return s.Settle(ctx) }); err != nil {
		return err
	}
	files, err := g.files()
	if err != nil {
		return err
	}
	v["mixed"] = float64(files.all) / float64(load.Points)
	v["mixed_segments"] = float64(files.segments) / float64(load.Points)
	v["journal"] = float64(files.journal)
	if err := g.Resume(ctx); err != nil {
		return err
	}
	return g.Verify(ctx, &c, load.Sums)
}

// slowOnDisk lets a day of rolls pass.
func (b *Bench) slowOnDisk(ctx context.Context, round int, v Values) (err error) {
	c := SlowCorpus(round)
	g, err := b.Gateway(ctx, c.Devices)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Discard()) }()
	if err := g.Stop(); err != nil {
		return err
	}
	// Files are counted while nobody has them open: the catalog's log is in it then.
	before, err := g.files()
	if err != nil {
		return err
	}
	first := First(c)
	err = g.within(ctx, func(s *server.Server) error {
		if err := g.Write(ctx, first.Load(corpus.Texts, c.Devices).Bodies[0]); err != nil {
			return err
		}
		return s.Settle(ctx)
	})
	if err != nil {
		return err
	}
	once, err := g.files()
	if err != nil {
		return err
	}
	load := c.Load(corpus.Texts, c.Devices*c.Steps/rollsOfDay)
	err = g.within(ctx, func(s *server.Server) error {
		for _, body := range load.Bodies {
			if err := g.Write(ctx, body); err != nil {
				return err
			}
			if err := s.Roll(ctx); err != nil {
				return err
			}
		}
		return s.Settle(ctx)
	})
	if err != nil {
		return err
	}
	files, err := g.files()
	if err != nil {
		return err
	}
	v["slow"] = float64(files.all) / float64(load.Points)
	v["slow_segments"] = float64(files.segments) / float64(load.Points)
	v["slow_readings"] = float64(files.all-once.all) / float64(load.Points)
	v["slow_empty"] = float64(before.all)
	v["devices"] = float64(once.all-before.all) / float64(c.Devices)
	if err := g.Resume(ctx); err != nil {
		return err
	}
	return g.Verify(ctx, &c, load.Sums)
}

// folderFiles is what lies in a data folder.
type folderFiles struct {
	all      int64 // but for the journal
	segments int64
	journal  int64
}

func (h *Hub) files() (f folderFiles, err error) {
	if f.all, err = Files(h.Data()); err != nil {
		return f, err
	}
	if f.segments, err = Files(filepath.Join(h.Data(), "segments")); err != nil {
		return f, err
	}
	if f.journal, err = Files(filepath.Join(h.Data(), "journal")); err != nil {
		return f, err
	}
	f.all -= f.journal
	return f, nil
}

// Files is what the files of a folder hold: of each its length, or the space it
// takes where that is less, so that neither a hole nor a block's unused end counts.
func Files(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a merge took it away
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size := info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size = min(size, st.Blocks*512)
		}
		sum += size
		return nil
	})
	return sum, err
}

// within runs the hub, which is stopped, inside this process for as long as work
// takes: to do at once what a hub does by its clocks.
func (g *Gateway) within(ctx context.Context, work func(*server.Server) error) error {
	s, err := server.Open(ctx, server.Config{Data: g.Data(), RootKey: filepath.Join(g.dir, "root.key"),
		ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0",
		Limits: server.Limits{ConnectsPerAddress: -1, ReadingsPerDevice: -1, BytesPerDevice: -1}})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ready, ended := make(chan server.Addresses, 1), make(chan error, 1)
	go func() { ended <- s.Run(running, func(at server.Addresses) { ready <- at }) }()
	select {
	case at := <-ready:
		g.at = addresses{API: at.API, Device: at.Device, MQTT: at.MQTT}
	case err := <-ended:
		return err
	}
	err = g.connect(ctx)
	if err == nil {
		err = work(s)
	}
	g.hangUp()
	stop()
	return errors.Join(err, <-ended)
}

// Discard stops the hub and removes its folder.
func (g *Gateway) Discard() error { return errors.Join(g.Close(), os.RemoveAll(g.dir)) }
