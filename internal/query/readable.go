package query

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// Readable is a stream that a reader may read, and how.
type Readable struct {
	*Source
	Every time.Duration // only in windows of this length or a multiple; 0: also as readings
}

// Streams returns what a reader may read of a span for a purpose, whosever it is. It
// gives out no readings, so nothing is disclosed; and it names no stream that Read
// would refuse.
func (q *Query) Streams(ctx context.Context, who access.Principal, named holdfast.Purpose, span holdfast.Span) ([]Readable, error) {
	req := Request{Who: who, Purpose: named, Selection: Selection{All: true}, Span: span}
	p, err := req.check()
	if err != nil {
		return nil, err
	}
	j, err := q.judge(ctx, req, p)
	if err != nil {
		return nil, err
	}
	all, err := q.mayRead(ctx, j, &req, span)
	if err != nil {
		return nil, err
	}
	out := make([]Readable, len(all))
	for i := range all {
		face := *all[i].face()
		out[i] = Readable{Source: &face, Every: all[i].Every}
	}
	return out, nil
}

// PurposeOf is the purpose that a read is for: the one named, or the only one that
// the reader has.
func PurposeOf(who access.Principal, named holdfast.Purpose) (holdfast.Purpose, error) {
	return purpose(who, named)
}

// readable is allowed for a selection of All.
func (q *Query) readable(ctx context.Context, j *judge, req *Request, span holdfast.Span) ([]candidate, error) {
	all, err := q.mayRead(ctx, j, req, span)
	if err != nil {
		return nil, err
	}
	if _, err := j.obey(ctx, req, all); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c candidate) bool { return !c.Allow || c.Span.From > c.Span.To })
	q.expire(all)
	return all, nil
}

// mayRead returns the streams that the reader may read of those that he asks for.
// Nothing being left is no refusal, unless he could read nobody's for that purpose.
func (q *Query) mayRead(ctx context.Context, j *judge, req *Request, span holdfast.Span) ([]candidate, error) {
	all, err := q.ofAll(ctx, j)
	if err != nil {
		return nil, fmt.Errorf("find streams: %w", err)
	}
	out := all[:0]
	for _, c := range all {
		if c.Decision, err = j.decide(ctx, &c, span); err != nil {
			return nil, err
		}
		if _, fits := c.fits(req); !c.Allow || !fits || c.Span.From > c.Span.To {
			continue
		}
		if slices.Contains(c.Drop, policy.FieldDevice) {
			if err := c.hide(ctx, j); err != nil {
				return nil, fmt.Errorf("hide device: %w", err)
			}
		}
		if req.Only == nil || req.Only[c.key()] {
			out = append(out, c)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	nobodys := candidate{Source: Source{Owner: holdfast.NewID[holdfast.PartyID]()}}
	nothing, err := policy.Compile(nobodys.Owner, nil, nil)
	if err != nil {
		return nil, err
	}
	nobodys.Decision = nothing.Decide(j.request(&nobodys, span))
	if nobodys.Reason == policy.NoPurpose || nobodys.Reason == policy.NotLive {
		return nil, j.refusal(&nobodys, Selection{}, span)
	}
	return nil, nil
}

// ofAll returns the streams of everybody whose data may be the reader's to read, by
// device and name.
func (q *Query) ofAll(ctx context.Context, j *judge) ([]candidate, error) {
	parties := append([]holdfast.PartyID{j.who.Party}, j.acts...)
	if j.purpose != holdfast.OwnAccess {
		grantors, err := q.grants.Grantors(ctx, j.who.Party)
		if err != nil {
			return nil, err
		}
		permitted, err := q.permits.Permitted(ctx, j.who)
		if err != nil {
			return nil, err
		}
		parties = append(append(parties, grantors...), permitted...)
	}
	var all []candidate
	seen := map[holdfast.StreamID]bool{}
	asked := map[holdfast.PartyID]bool{}
	for _, p := range parties {
		if p.IsZero() || asked[p] {
			continue
		}
		asked[p] = true
		some, _, err := q.ofParty(ctx, j, p, "")
		if holdfast.KindOf(err) == holdfast.NotFound {
			continue // erased meanwhile
		}
		if err != nil {
			return nil, err
		}
		for _, c := range some {
			if !c.StreamID.IsZero() && !seen[c.StreamID] {
				seen[c.StreamID] = true
				all = append(all, c)
			}
		}
	}
	if j.reader() == policy.Recipient {
		j.unname(all)
	}
	inOrder(all)
	return all, nil
}

// Loan is memory of the budget of reads, for who keeps rows beside reading them. It
// is safe for concurrent use.
type Loan struct {
	purse *purse

	mu       sync.Mutex
	taken    int64
	releases []func()
}

// Borrow returns a Loan of nothing yet.
func (q *Query) Borrow() *Loan { return &Loan{purse: q.purse} }

// Most is what one query may take, in bytes.
func (l *Loan) Most() int64 { return l.purse.Query }

// Grow takes n bytes more: TooLarge beyond what one query may take, Unavailable while
// others have it.
func (l *Loan) Grow(n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken+n > l.purse.Query {
		return l.purse.tooLarge()
	}
	release, err := l.purse.take(n)
	if err != nil {
		return err
	}
	l.taken += n
	l.releases = append(l.releases, release)
	return nil
}

// Release gives all of it back.
func (l *Loan) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, release := range l.releases {
		release()
	}
	l.taken, l.releases = 0, nil
}

// Unerased fails if an erasure that was asked for since the read began covers any of
// what was asked: for who has kept rows that he has not given out yet.
func (r *Result) Unerased() error { return r.unerased() }
