package erasure

import (
	"fmt"
	"math"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Scope is holdfast.Scope as it stands in certificates.
type Scope struct {
	Assignments []holdfast.AssignmentID `json:"assignments"`
	Streams     []holdfast.StreamID     `json:"streams,omitempty"`
	From        *time.Time              `json:"from,omitempty"` // both or neither
	To          *time.Time              `json:"to,omitempty"`
	Month       string                  `json:"month,omitempty"` // YYYY-MM: what arrived in it
	Whole       bool                    `json:"whole_party,omitempty"`
	Before      time.Time               `json:"arrived_before"`
}

func scopeText(s holdfast.Scope) Scope {
	out := Scope{Assignments: s.Assignments, Streams: s.Streams, Whole: s.Whole, Before: time.Unix(0, s.Before).UTC()}
	if s.Partial() {
		from, to := time.Unix(0, s.Span.From).UTC(), time.Unix(0, s.Span.To).UTC()
		out.From, out.To = &from, &to
	}
	if s.Month != 0 {
		out.Month = monthText(s.Month)
	}
	return out
}

func monthText(month int) string { return fmt.Sprintf("%04d-%02d", month/100, month%100) }

func (p Plan) scope(party holdfast.PartyID) holdfast.Scope {
	s := holdfast.Scope{Party: party, Assignments: p.Scope.Assignments, Streams: p.Scope.Streams,
		Span: holdfast.Always, Whole: p.Scope.Whole, Before: p.Scope.Before.UnixNano()}
	if p.Scope.From != nil {
		s.Span = holdfast.Span{From: p.Scope.From.UnixNano(), To: p.Scope.To.UnixNano()}
	}
	if p.Scope.Month != "" {
		var year, month int
		if n, err := fmt.Sscanf(p.Scope.Month, "%d-%d", &year, &month); err == nil && n == 2 {
			s.Month = 100*year + month
		}
	}
	return s
}

func (e *Erasure) inPart() bool {
	return len(e.Scope.Streams) > 0 || e.Scope.From != nil || e.Scope.Month != ""
}

func owners(s holdfast.Scope) []vault.Owner {
	var out []vault.Owner
	for _, a := range s.Assignments {
		out = append(out, vault.OfAssignment(a))
	}
	if s.Whole {
		out = append(out, vault.OfParty(s.Party))
	}
	return out
}

// bars keep out what the scope covers: of assignments that end, whatever comes;
// of those that live on, what arrived or was taken before the erasure. of are the
// streams of each assignment, where that is known.
func bars(s holdfast.Scope, of ...[]holdfast.StreamID) (out []grant.Bar) {
	before := s.Before
	if !s.InPart() {
		before = math.MaxInt64
	}
	for i, a := range s.Assignments {
		streams := streamsOf(s, of, i)
		if len(streams) == 0 {
			streams = []holdfast.StreamID{{}} // every one
		}
		for _, stream := range streams {
			out = append(out, grant.Bar{Party: s.Party, Assignment: a, Stream: stream, Span: s.Span, ArrivedBefore: before})
		}
	}
	return out
}

// streamsOf returns the streams of a scope that are its assignment i's.
func streamsOf(s holdfast.Scope, of [][]holdfast.StreamID, i int) []holdfast.StreamID {
	if len(of) == len(s.Assignments) {
		return of[i]
	}
	return s.Streams
}

// parts takes the scope of several assignments with streams of each apart, so that
// nobody looks for the streams of one in another.
func (e *Erasure) parts() []holdfast.Scope {
	whole := e.scope(e.Party)
	if len(e.Of) != len(whole.Assignments) {
		return []holdfast.Scope{whole}
	}
	out := make([]holdfast.Scope, len(e.Of))
	for i := range out {
		out[i] = whole
		out[i].Assignments, out[i].Streams = whole.Assignments[i:i+1], e.Of[i]
	}
	return out
}
