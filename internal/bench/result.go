package bench

import (
	"time"
)

// Result is what one run of a figure found. It is what is kept as JSON; rows are
// computed from it.
type Result struct {
	Figure    string    `json:"figure"`
	Date      time.Time `json:"date"`
	Command   string    `json:"command"`
	Machine   Machine   `json:"machine"`
	Sides     []Rounds  `json:"sides"` // Holdfast first
	Skipped   []string  `json:"skipped,omitempty"`
	Before    Probe     `json:"disk_before"`
	After     Probe     `json:"disk_after"`
	Disturbed bool      `json:"disturbed,omitempty"` // the bare disk changed more than threefold meanwhile
}

// Rounds are what one side measured.
type Rounds struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Year    int      `json:"year,omitempty"`
	Rounds  []Values `json:"rounds"`
}

// Row is one measure of a result.
type Row struct {
	Measure Measure
	Own     Spread
	Peer    *Spread // nil: there is none, or it was skipped
	Ratio   *Spread // of the rounds' ratios
	Verdict Verdict
	Why     string // of a miss
}

// Verdict is what became of a goal.
type Verdict string

const (
	Hit         Verdict = "hit"
	Miss        Verdict = "miss"
	NotJudged   Verdict = ""
	NotCompared Verdict = "not compared" // the peer was not there
)

// side finds a side by name, nil if it is not there.
func (r *Result) side(name string) *Rounds {
	for i := range r.Sides {
		if r.Sides[i].Name == name {
			return &r.Sides[i]
		}
	}
	return nil
}

// Own returns the spread of one of Holdfast's values, also of one that no measure
// names.
func (r *Result) Own(key string) Spread {
	if len(r.Sides) == 0 {
		return SpreadOf(nil)
	}
	return SpreadOf(r.Sides[0].values(key))
}

// Of is Own for any side.
func (r *Result) Of(name, key string) Spread {
	s := r.side(name)
	if s == nil {
		return SpreadOf(nil)
	}
	return SpreadOf(s.values(key))
}

func (s *Rounds) values(key string) []float64 {
	var out []float64
	for _, v := range s.Rounds {
		if x, ok := v[key]; ok {
			out = append(out, x)
		}
	}
	return out
}

// Rows judges a result. Measures that were not taken are left out.
func (f *Figure) Rows(r *Result) []Row {
	var rows []Row
	for _, m := range f.Measures {
		own := r.Sides[0].values(m.Key)
		if len(own) == 0 {
			continue
		}
		row := Row{Measure: m, Own: SpreadOf(own)}
		judged := row.Own.Median
		if m.Peer != "" {
			judged = 0
			if peer := r.side(m.Peer); peer != nil {
				theirs := peer.values(m.Key)
				p := SpreadOf(theirs)
				ratio := SpreadOf(ratios(own, theirs))
				row.Peer, row.Ratio, judged = &p, &ratio, ratio.Median
			}
		}
		if m.Absolute {
			judged = row.Own.Median
		}
		switch {
		case !m.Goal.Judged():
		case m.Peer != "" && row.Ratio == nil && !m.Absolute:
			row.Verdict = NotCompared
		case m.Goal.Met(judged):
			row.Verdict = Hit
		default:
			row.Verdict = Miss
			if m.Why != nil {
				row.Why = m.Why(r)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// ratios divides round by round.
func ratios(own, theirs []float64) []float64 {
	var out []float64
	for i := range min(len(own), len(theirs)) {
		out = append(out, own[i]/theirs[i])
	}
	return out
}
