package ledger

import (
	"database/sql"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// opened is about what a disclosure's entry says.
type opened struct {
	Disclosure string   `json:"disclosure"`
	Recipient  string   `json:"recipient"`
	Purpose    string   `json:"purpose"`
	Streams    []string `json:"streams"`
}

func anEvent() opened {
	return opened{"jxkmv5tqz3q7g5m2a4n6r8s0tu", "q2w4e6r8t0yuiopasdfghjklzx", "service", []string{"abcdefghijklmnopqrstuvwxyz"}}
}

// Leaves in one transaction, of 50 records: ns/op is that of a leaf.
func BenchmarkAppendBatched(b *testing.B) {
	l := open(b)
	owners := make([]vault.Owner, 50)
	for i := range owners {
		owners[i] = l.party()
	}
	all := make([]Happening, 1000)
	for i := range all {
		all[i] = Happening{owners[i%len(owners)], "disclosure opened", anEvent()}
	}
	b.ReportAllocs()
	b.ResetTimer()
	err := l.db.Write(b.Context(), func(tx *sql.Tx) error {
		for done := 0; done < b.N; done += len(all) {
			if _, err := l.AppendAll(b.Context(), tx, all[:min(len(all), b.N-done)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leaves/s")
}

// One leaf in a durable transaction of its own.
func BenchmarkAppendDurably(b *testing.B) {
	l := open(b)
	o := l.party()
	b.ReportAllocs()
	for b.Loop() {
		l.append(o, "disclosure opened", anEvent())
	}
}

func BenchmarkProve(b *testing.B) {
	l := open(b)
	o := l.party()
	const entries = 20_000
	all := make([]Happening, entries)
	for i := range all {
		all[i] = Happening{o, "disclosure opened", anEvent()}
	}
	l.write(func(tx *sql.Tx) error {
		_, err := l.AppendAll(b.Context(), tx, all)
		return err
	})
	l.publish()
	i := uint64(0)
	for b.Loop() {
		if _, err := l.Prove(b.Context(), o, i*7919%entries); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// A tick of a hub on which nothing happens.
func BenchmarkPublishIdle(b *testing.B) {
	l := open(b)
	for b.Loop() {
		l.publish()
	}
}
