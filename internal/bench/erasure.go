package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// erasure is the figure of what is left on the disk of an owner who was deleted.
func erasure() Figure {
	measure := func(key, what string, unit Unit) []Measure {
		return []Measure{{Key: key, What: what, Unit: unit, Peer: "PostgreSQL"}, {Key: key, What: what, Unit: unit, Peer: "VictoriaMetrics"}}
	}
	f := Figure{
		ID:    "ERASURE",
		Title: "What a deleted owner leaves on the disk",
		What: fmt.Sprintf("Three owners of ten devices with %d readings each, one after the other; the one in the middle is deleted. Each system does it as it is told to: Holdfast erases the party, PostgreSQL runs DELETE and VACUUM, VictoriaMetrics "+
			"delete_series and a forced merge. All files of each system are read before and after his readings come, and at the end, logs written ahead included: how many of the bytes that came with them, in pieces of 16, are still somewhere. What a system wrote of its own "+
			"meanwhile, such as rows about files, counts too. Holdfast's bytes were encrypted in the first place, under a key that is gone", RemainsDevices*RemainsSteps),
		Holdfast: remainsOfHub,
	}
	f.Measures = append(f.Measures, measure("refused", "until he is read no more", Seconds)...)
	f.Measures = append(f.Measures, measure("done", "until all is done", Seconds)...)
	f.Measures = append(f.Measures, measure("came", "bytes that came into the files with his readings", Bytes)...)
	f.Measures = append(f.Measures, measure("recovered", "of these, bytes that are still in the files", Bytes)...)
	f.Measures = append(f.Measures, measure("share", "that is", Percentage)...)
	for i := range f.Measures {
		if m := &f.Measures[i]; m.Key == "share" {
			m.Goal, m.Absolute = Goal{Most: 1}, true
		}
	}
	return f
}

// Of ERASURE.
const (
	RemainsDevices = 10
	RemainsSteps   = 20_000
	RemainsOwners  = 3
	RemainsErased  = 1
)

// RemainsCorpus is what an owner has.
func RemainsCorpus(round, owner int) corpus.Corpus {
	return corpus.Corpus{Seed: 900 + uint64(round*RemainsOwners+owner), Devices: RemainsDevices, First: owner * RemainsDevices, Kinds: []corpus.Kind{corpus.Temperature},
		From: Yesterday().AddDate(0, 0, -7), Every: 1e9, Steps: RemainsSteps}
}

// Left adds to v what of the erased owner is still there.
func (r *Remains) Left(v Values, dirs ...string) error {
	came, found, err := r.Found(dirs...)
	v["came"], v["recovered"] = float64(came), float64(found)
	v["share"] = 100 * float64(found) / max(1, float64(came))
	return err
}

func remainsOfHub(ctx context.Context, b *Bench) (*Side, error) {
	return b.OwnSide(b.remains, nil), nil
}

func (b *Bench) remains(ctx context.Context, round int) (v Values, err error) {
	g, err := b.Gateway(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Discard()) }()
	dirs := []string{g.Data(), filepath.Join(g.dir, "root.key")}
	if info, err := os.Stat(dirs[1]); err != nil || !info.Mode().IsRegular() {
		dirs = dirs[:1]
	}
	var left *Remains
	var erased string
	for i := range RemainsOwners {
		c := RemainsCorpus(round, i)
		party, err := g.addPerson(ctx, fmt.Sprintf("owner %d", i), c)
		if err != nil {
			return nil, err
		}
		if i == RemainsErased {
			if left, err = NewRemains(dirs...); err != nil {
				return nil, err
			}
		}
		if err := g.fill(ctx, c); err != nil {
			return nil, err
		}
		if i == RemainsErased {
			if err := left.Came(dirs...); err != nil {
				return nil, err
			}
			erased = party
		}
		if err := g.Restart(ctx); err != nil { // what was in the journal is in segments
			return nil, err
		}
	}
	e, err := g.erase(ctx, erased, corpus.Name(RemainsErased*RemainsDevices))
	if err != nil {
		return nil, err
	}
	v = Values{"refused": e.refused.Seconds(), "done": e.done.Seconds()}
	return v, left.Left(v, dirs...)
}
