package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
	"github.com/holdfast-iot/holdfast/internal/vault/vaultbench"
)

func p8() Figure {
	own := func(key, what string, unit Unit, most float64) Measure {
		return Measure{Key: key, What: what, Unit: unit, Goal: Goal{Most: most}}
	}
	return Figure{
		ID:    "P8",
		Title: "Erasing an owner",
		What: "Owners of ten devices each are erased through the API: one has 5 million readings, the others, two before it and two after, a thousand; theirs are medians. All times are from the request on, by the certificate: refused, from where on nothing of the owner " +
			"is read or taken in (a reading that comes once the request is answered must be turned away); keys dead, when the old root key is destroyed, with no window to collect erasures in. " +
			"PostgreSQL deletes the 5 million rows of the owner and vacuums the table. " +
			"The keyring of a million owners lies in a folder of its own: opened, one owner destroyed, and every page given a fresh key",
		Measures: []Measure{
			own("refused_big", "5 M readings: refused", Seconds, 1),
			{Key: "refused_small", What: "1,000 readings: refused", Unit: Seconds},
			{Key: "answered_big", What: "5 M readings: request answered", Unit: Seconds},
			own("refused_ratio", "refused, 5 M to 1,000", Times, 1.2),
			{Key: "dead_big", What: "5 M readings: keys dead", Unit: Seconds, Peer: "PostgreSQL", Goal: Goal{Most: 1.0 / 20}},
			{Key: "dead_small", What: "1,000 readings: keys dead", Unit: Seconds},
			own("dead_ratio", "keys dead, 5 M to 1,000", Times, 1.2),
			{Key: "done_big", What: "5 M readings: ciphertext gone, certificate signed", Unit: Seconds},
			own("rotation", "a million owners: one destroyed", Seconds, 0.1),
			{Key: "rewrap", What: "a million owners: every page anew", Unit: Seconds, Goal: Goal{Most: 1}, Why: func(r *Result) string {
				return fmt.Sprintf("Each owner key is opened and sealed anew, %.2f µs an owner on all cores of this machine at once, and a hundred megabytes of pages are written and synced; more cores help.",
					r.Own("rewrap").Median*1e6/manyOwners)
			}},
			{Key: "open", What: "a million owners: keyring opened", Unit: Seconds},
		},
		Holdfast: eraseOnHub,
	}
}

// Of P8.
const (
	EraseDevices = 10
	bigSteps     = 500_000
	smallSteps   = 100
	smallOwners  = 4
	manyOwners   = 1_000_000
)

// EraseCorpus is what the owner with many readings has.
func EraseCorpus(round int) corpus.Corpus {
	return corpus.Corpus{Seed: 800 + uint64(round), Devices: EraseDevices, Kinds: []corpus.Kind{corpus.Temperature}, From: Yesterday().AddDate(0, 0, -7), Every: time.Second, Steps: bigSteps}
}

func eraseOnHub(ctx context.Context, b *Bench) (*Side, error) {
	return b.OwnSide(func(ctx context.Context, round int) (Values, error) {
		v := Values{}
		if err := b.eraseOwners(ctx, round, v); err != nil {
			return nil, err
		}
		return v, b.manyOwners(ctx, v)
	}, nil), nil
}

// eraseOwners makes the owners of a round and erases them.
func (b *Bench) eraseOwners(ctx context.Context, round int, v Values) (err error) {
	g, err := b.Gateway(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Discard()) }()
	owners := make([]string, smallOwners+1)
	const big = smallOwners / 2 // in the middle, so that what the order does falls on both sides
	for i := range owners {
		c := EraseCorpus(round)
		if c.First = i * EraseDevices; i != big {
			c.Steps = smallSteps
		}
		if owners[i], err = g.addOwner(ctx, fmt.Sprintf("owner %d", i), c); err != nil {
			return err
		}
	}
	if err := Rest(ctx, g.PID()); err != nil {
		return err
	}
	var small []erased
	var large erased
	for i, owner := range owners {
		e, err := g.erase(ctx, owner, corpus.Name(i*EraseDevices))
		if err != nil {
			return err
		}
		if i == big {
			large = e
		} else {
			small = append(small, e)
		}
	}
	of := func(what func(erased) time.Duration) (big, median float64) {
		var all []float64
		for _, e := range small {
			all = append(all, what(e).Seconds())
		}
		slices.Sort(all)
		return what(large).Seconds(), SpreadOf(all).Median
	}
	v["refused_big"], v["refused_small"] = of(func(e erased) time.Duration { return e.refused })
	v["answered_big"], v["answered_small"] = of(func(e erased) time.Duration { return e.answered })
	v["dead_big"], v["dead_small"] = of(func(e erased) time.Duration { return e.dead })
	v["done_big"], v["done_small"] = of(func(e erased) time.Duration { return e.done })
	v["refused_ratio"] = v["refused_big"] / v["refused_small"]
	v["dead_ratio"] = v["dead_big"] / v["dead_small"]
	return nil
}

// addOwner makes a person with ten devices behind the gateway and their readings.
func (g *Gateway) addOwner(ctx context.Context, name string, c corpus.Corpus) (string, error) {
	party, err := g.addPerson(ctx, name, c)
	if err != nil {
		return "", err
	}
	return party, g.fill(ctx, c)
}

// addPerson makes him and the devices of a corpus.
func (g *Gateway) addPerson(ctx context.Context, name string, c corpus.Corpus) (string, error) {
	var party struct{ ID string }
	if err := g.admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": name, "kind": "person"}, &party); err != nil {
		return "", err
	}
	return party.ID, g.declare(ctx, party.ID, c.First, c.Devices)
}

// fill sends the readings of a corpus.
func (g *Gateway) fill(ctx context.Context, c corpus.Corpus) error {
	load := c.Load(corpus.Texts, LinesPerRequest)
	_, err := Pour(ctx, LineSenders, len(load.Bodies), func(ctx context.Context, i int) error { return g.Write(ctx, load.Bodies[i]) })
	return err
}

// erased is how long after the request was sent an erasure had come so far.
type erased struct{ refused, answered, dead, done time.Duration }

// erase erases an owner and follows it to its certificate. device is one of his.
func (g *Gateway) erase(ctx context.Context, owner, device string) (e erased, err error) {
	var doc struct {
		ID, State, Certificate string
		Refused, Purged        time.Time
		KeysDestroyed          time.Time `json:"keys_destroyed"`
	}
	began := time.Now()
	if err := g.admin.Do(ctx, http.MethodPost, "/v1/erasures?wait=0", map[string]string{"party": owner}, &doc); err != nil {
		return e, fmt.Errorf("erase: %w", err)
	}
	e.answered = time.Since(began)
	line := []byte(corpus.Measurement + ",device=" + device + " " + corpus.Temperature.String() + "=1\n")
	if _, err := g.post(ctx, line); err == nil {
		return e, holdfast.Errorf(holdfast.Internal, "the hub took a reading of an owner who is being erased")
	}
	if err := g.admin.Do(ctx, http.MethodGet, "/v1/erasures/"+doc.ID+"?wait=60", nil, &doc); err != nil {
		return e, fmt.Errorf("erase: %w", err)
	}
	if doc.State != "done" || doc.Certificate == "" {
		return e, holdfast.Errorf(holdfast.Internal, "after a minute the erasure is only %s", doc.State)
	}
	wall := began.Round(0) // the hub's clock is this machine's
	e.refused, e.dead, e.done = doc.Refused.Sub(wall), doc.KeysDestroyed.Sub(wall), doc.Purged.Sub(wall)
	return e, nil
}

// manyOwners measures a keyring of a million.
func (b *Bench) manyOwners(ctx context.Context, v Values) error {
	dir, err := b.Folder("keyring")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := vaultbench.Run(ctx, dir, manyOwners, nil)
	if err != nil {
		return err
	}
	v["rotation"], v["rewrap"], v["open"] = f.One.Dead.Seconds(), f.Rewrap.Time.Seconds(), f.Open.Seconds()
	v["keyring_heap"] = float64(f.Heap)
	return nil
}
