package series

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// fill makes records durable without waiting for each.
func (r *rig) fill(records []Header, contents []*Content) {
	r.t.Helper()
	done := make(chan error, len(records))
	for i, h := range records {
		r.counter++
		h.Type, h.Writer, h.Counter = Readings, r.writer, r.counter
		record, _, _ := AppendRecord(nil, nil, h, contents[i], r.keys.journalCipher(h.Assignment, h.Bucket))
		r.log.Append(record, func(pos journal.Pos, err error) {
			if err == nil {
				r.Observe(h, contents[i].Rows, pos, pos+journal.Pos(len(record)))
			}
			done <- err
		})
	}
	for range records {
		r.must(<-done)
	}
}

// temperatures gives readings with one decimal and a clock that is off by up to
// 3 ms.
func temperatures(rng *rand.Rand, at, every int64, n int) (out []holdfast.Reading) {
	v := 215
	for i := range n {
		v += rng.IntN(3) - 1
		out = append(out, number((at+int64(i)*every)/1e6*1e6+(rng.Int64N(7)-3)*1e6, float64(v)/10))
	}
	return out
}

// devices makes records of many devices: each brings perRecord readings a record.
func devices(rng *rand.Rand, n, records, perRecord int) (hs []Header, cs []*Content) {
	for d := range n {
		a := holdfast.AssignmentID{0: 'd', 1: byte(d >> 8), 2: byte(d)}
		rows := temperatures(rng, testArrival-int64(records*perRecord)*1e9, 1e9, records*perRecord)
		for len(rows) > 0 {
			c := &Content{}
			for _, x := range rows[:perRecord] {
				c.Rows = append(c.Rows, Row{testStream(1), x})
			}
			rows = rows[perRecord:]
			hs = append(hs, Header{Assignment: a, Bucket: 202611, Arrival: testArrival})
			cs = append(cs, c)
		}
	}
	return hs, cs
}

func BenchmarkRoll(b *testing.B) {
	for _, shape := range []struct {
		name                        string
		devices, records, perRecord int
	}{
		{"1000x20x20", 1000, 20, 20},
		{"1000x100x1", 1000, 100, 1},
		{"10x2000x20", 10, 2000, 20},
	} {
		b.Run(shape.name, func(b *testing.B) {
			r := newSizedRig(b, Options{Bytes: 1 << 40}, 64<<20)
			hs, cs := devices(rand.New(rand.NewPCG(1, 1)), shape.devices, shape.records, shape.perRecord)
			for b.Loop() {
				b.StopTimer()
				r.fill(hs, cs)
				b.StartTimer()
				r.roll()
			}
			b.ReportMetric(float64(b.N*len(hs)*shape.perRecord)/b.Elapsed().Seconds()/1e6, "Mreadings/s")
		})
	}
}

func BenchmarkRecover(b *testing.B) {
	for _, perRecord := range []int{1, 20, 300} {
		b.Run(fmt.Sprintf("%d-per-record", perRecord), func(b *testing.B) {
			r := newSizedRig(b, Options{Bytes: 1 << 40}, 64<<20)
			hs, cs := devices(rand.New(rand.NewPCG(1, 1)), 1000, 100, perRecord)
			r.fill(hs, cs)
			for b.Loop() {
				r.must(r.Recover(b.Context(), nil))
			}
			b.ReportMetric(float64(b.N)*float64(r.log.End())/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}

func BenchmarkScan(b *testing.B) {
	const hours = 24
	r := newSizedRig(b, Options{Bytes: 1 << 40}, 64<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	all := temperatures(rng, testArrival, 1e9, hours*3600)
	for rows := all; len(rows) > 0; rows = rows[300:] {
		c := &Content{}
		for _, x := range rows[:300] {
			c.Rows = append(c.Rows, Row{testStream(1), x})
		}
		r.append(Header{Assignment: alice, Bucket: 202611, Arrival: testArrival}, c)
		r.roll()
	}
	spans := map[string]holdfast.Span{
		"day":  holdfast.Always,
		"hour": {From: testArrival + 12*3600e9, To: testArrival + 13*3600e9 - 1},
	}
	run := func(b *testing.B, span holdfast.Span) {
		n := 0
		for b.Loop() {
			n = 0
			for _, err := range r.Scan(b.Context(), alice, testStream(1), span) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
		b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds()/1e6, "Mreadings/s")
	}
	for name, span := range spans {
		b.Run("rolled/"+name, func(b *testing.B) { run(b, span) })
	}
	r.merge()
	for name, span := range spans {
		b.Run("merged/"+name, func(b *testing.B) { run(b, span) })
	}
}

// BenchmarkSlowDevices says what a point costs on disk when 50 devices send one
// reading a minute for a day, the journal is rolled every 5 minutes and all of it
// merged once.
func BenchmarkSlowDevices(b *testing.B) {
	const minutes = 24 * 60
	const fleet = 50
	for b.Loop() {
		r := newSizedRig(b, Options{}, 1<<20)
		empty := r.catalogBytes()
		rng := rand.New(rand.NewPCG(1, 1))
		rows := make([][]holdfast.Reading, fleet)
		for d := range rows {
			rows[d] = temperatures(rng, testArrival/86400e9*86400e9, 60e9, minutes)
		}
		for m := range minutes {
			var hs []Header
			var cs []*Content
			for d := range rows {
				x := rows[d][m]
				hs = append(hs, Header{Assignment: holdfast.AssignmentID{0: 'd', 2: byte(d)}, Bucket: seal.BucketOf(x.Time, false), Arrival: x.Time + 30e6})
				cs = append(cs, &Content{Rows: []Row{{testStream(1), x}}})
			}
			r.fill(hs, cs)
			if m%60 == 59 {
				r.roll()
			}
		}
		points := float64(fleet * minutes)
		b.ReportMetric(float64(r.count(`SELECT sum(live_bytes) FROM segment`))/points, "rolled-B/point")
		b.ReportMetric((r.catalogBytes()-empty)/points, "rolled-catalog-B/point")
		r.merge()
		r.tidy("merged")
		if n := r.count(`SELECT count(*) FROM chunk`); n != fleet {
			b.Errorf("%d chunks", n)
		}
		b.ReportMetric(float64(r.count(`SELECT sum(bytes) FROM segment`))/points, "merged-B/point")
		b.ReportMetric((r.catalogBytes()-empty)/points, "merged-catalog-B/point")
	}
}

// catalogBytes is what the catalog holds, without the pages that are free.
func (r *rig) catalogBytes() float64 {
	var pages, free, size int64
	r.must(r.db.Read(r.t.Context(), func(tx *sql.Tx) error {
		for q, v := range map[string]*int64{"page_count": &pages, "freelist_count": &free, "page_size": &size} {
			if err := tx.QueryRow("PRAGMA " + q).Scan(v); err != nil {
				return err
			}
		}
		return nil
	}))
	return float64((pages - free) * size)
}
