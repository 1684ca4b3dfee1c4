package erasure

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Whoever was given what is erased is told so (GDPR Art. 19): by his webhooks, and by a
// list that his programs read. What he answers is kept, under his own key, so that it
// outlives the owner's.

// States of a retraction.
const (
	RetractionOpen  = "open"
	RetractionAcked = "acked"
	RetractionGone  = "gone" // the recipient was erased himself
)

// Retraction tells a recipient that readings which he was given are erased. It names
// ids only.
type Retraction struct {
	ID        holdfast.RetractionID
	Number    int64 // rises in the order in which they were made
	Erasure   holdfast.ErasureID
	Recipient holdfast.PartyID
	State     string
	RetractionInfo
}

// RetractionInfo is what is sealed of one. Of one that is gone there is none.
type RetractionInfo struct {
	Grants  []holdfast.GrantID `json:"grants,omitempty"` // none: he read without one
	Streams []RetractedStream  `json:"streams"`
	From    *time.Time         `json:"from,omitempty"` // of the readings' own times; both or neither
	To      *time.Time         `json:"to,omitempty"`
	Month   string             `json:"month,omitempty"` // of arrival at the hub
	Made    time.Time          `json:"made"`
	Acked   time.Time          `json:"acked,omitzero"`
	By      string             `json:"by,omitempty"` // credential that acknowledged
}

// RetractedStream is a stream of a device.
type RetractedStream struct {
	Device holdfast.DeviceID `json:"device"`
	Stream holdfast.StreamID `json:"stream"`
}

const retractionTable = "retraction"

// retracting is a retraction on its way into the catalog.
type retracting struct {
	Retraction
	box      []byte
	messages []*outbox.Draft
}

// Notice is the message of a webhook about a retraction.
type Notice struct {
	Type      string    `json:"type"` // erasure.retraction
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Retraction holdfast.RetractionID `json:"retraction"`
		RetractionInfo
		More bool `json:"more,omitempty"` // there are more streams than these: the list has all
	} `json:"data"`
}

// mostTold is how many streams a message names.
const mostTold = 500

// retract finds who was given what a scope covers. It needs the owners' keys.
func (g *Gate) retract(ctx context.Context, e Erasure, s holdfast.Scope) ([]*retracting, error) {
	if len(s.Assignments) == 0 {
		return nil, nil
	}
	operating, err := g.Custody.Operating(ctx)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return nil, err
	}
	devices, of, err := g.whoseStreams(ctx, s)
	if err != nil {
		return nil, err
	}
	told := map[holdfast.PartyID]*retracting{}
	for whose, streams := range of {
		all, err := g.received(ctx, whose, operating, streams, s)
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			r := told[t.Recipient]
			if r == nil {
				r = &retracting{Retraction: Retraction{ID: holdfast.NewID[holdfast.RetractionID](), Erasure: e.ID, Recipient: t.Recipient, State: RetractionOpen}}
				r.Made, r.From, r.To, r.Month = e.Began(), e.Scope.From, e.Scope.To, e.Scope.Month
				told[t.Recipient] = r
			}
			if !t.Grant.IsZero() && !slices.Contains(r.Grants, t.Grant) {
				r.Grants = append(r.Grants, t.Grant)
			}
			for _, x := range t.Streams {
				if streams[x] {
					r.Streams = append(r.Streams, RetractedStream{devices[x], x})
				}
			}
		}
	}
	var out []*retracting
	for _, r := range told {
		slices.SortFunc(r.Streams, func(a, b RetractedStream) int {
			return cmp.Or(slices.Compare(a.Device[:], b.Device[:]), slices.Compare(a.Stream[:], b.Stream[:]))
		})
		r.Streams = slices.Compact(r.Streams)
		switch r.box, err = g.sealRetraction(ctx, r.Retraction); {
		case holdfast.KindOf(err) == holdfast.NotFound: // he was erased
			continue
		case err != nil:
			return nil, err
		}
		if r.messages, err = g.messages(ctx, r.Retraction); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *retracting) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out, nil
}

// whoseStreams returns the devices of the streams in a scope, and the streams by whose
// data they are.
func (g *Gate) whoseStreams(ctx context.Context, s holdfast.Scope) (map[holdfast.StreamID]holdfast.DeviceID, map[holdfast.PartyID]map[holdfast.StreamID]bool, error) {
	devices, of := map[holdfast.StreamID]holdfast.DeviceID{}, map[holdfast.PartyID]map[holdfast.StreamID]bool{}
	in := newOpened(s, false)
	for _, id := range s.Assignments {
		a, err := g.Custody.Assignment(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if a.Whose().IsZero() {
			continue
		}
		all, err := g.Custody.StreamsOfAssignment(ctx, a)
		if err != nil {
			return nil, nil, err
		}
		for _, x := range all {
			if !in.has(x.ID) {
				continue
			}
			if of[a.Whose()] == nil {
				of[a.Whose()] = map[holdfast.StreamID]bool{}
			}
			devices[x.ID], of[a.Whose()][x.ID] = a.Device, true
		}
	}
	return devices, of, nil
}

// received returns what others than the owner and the hub's own people have read of
// streams of his, as far as it may be of the scope's span.
func (g *Gate) received(ctx context.Context, whose, operating holdfast.PartyID, streams map[holdfast.StreamID]bool, s holdfast.Scope) ([]grant.Tally, error) {
	all, err := g.Grants.Tallies(ctx, whose)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(t grant.Tally) bool {
		return t.Recipient == whose || t.Recipient == operating || t.Rows == 0 && t.Open == 0 ||
			t.Rows > 0 && t.Open == 0 && !s.Span.Overlaps(holdfast.Span{From: t.First, To: t.Final}) ||
			!slices.ContainsFunc(t.Streams, func(x holdfast.StreamID) bool { return streams[x] })
	}), nil
}

func (g *Gate) sealRetraction(ctx context.Context, r Retraction) ([]byte, error) {
	plain, err := json.Marshal(r.RetractionInfo)
	if err != nil {
		return nil, err
	}
	return g.Vault.SealField(ctx, vault.OfParty(r.Recipient), retractionTable, r.ID[:], "info", plain)
}

// messages are those to a recipient's webhooks. One that takes no more does not keep
// the erasure: the list has the retraction anyway.
func (g *Gate) messages(ctx context.Context, r Retraction) ([]*outbox.Draft, error) {
	if g.Outbox == nil {
		return nil, nil
	}
	hooks, err := g.Outbox.Webhooks(ctx, r.Recipient)
	if err != nil {
		return nil, err
	}
	n := Notice{Type: "erasure.retraction", Timestamp: r.Made}
	n.Data.Retraction, n.Data.RetractionInfo = r.ID, r.RetractionInfo
	if n.Data.More = len(r.Streams) > mostTold; n.Data.More {
		n.Data.Streams = r.Streams[:mostTold]
	}
	body, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	var out []*outbox.Draft
	for _, w := range hooks {
		if w.State != outbox.Active {
			continue
		}
		d, err := g.Outbox.Prepare(ctx, outbox.Message{Party: r.Recipient, Webhook: w.ID, Body: body})
		if err != nil {
			g.Logger.WarnContext(ctx, "erasure: a retraction is not sent", "retraction", r.ID, "kind", holdfast.KindOf(err).String())
			continue
		}
		out = append(out, d)
	}
	return out, nil
}

// insertRetractions writes retractions and their messages in the transaction that
// begins the erasure. Of a party that goes, what it was told goes.
func insertRetractions(ctx context.Context, tx *sql.Tx, s holdfast.Scope, told []*retracting) error {
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(n), 0) FROM retraction`).Scan(&last); err != nil {
		return err
	}
	for _, r := range told {
		// Recipients read on from a number. With the clock in it, none is given again
		// by a hub that was put back and does not know what it has told since.
		r.Number = max(last+1, time.Now().UnixMilli())
		last = r.Number
		if _, err := tx.ExecContext(ctx, `INSERT INTO retraction (id, n, erasure, recipient, state, info_sealed)
			VALUES ($1, $2, $3, $4, $5, $6)`, r.ID, r.Number, r.Erasure, r.Recipient, r.State, r.box); err != nil {
			return err
		}
		if err := takeBackTold(ctx, tx, r.Retraction, r.box); err != nil {
			return err
		}
		for _, d := range r.messages {
			if err := d.Insert(ctx, tx); err != nil {
				return err
			}
		}
	}
	if !s.Whole {
		return nil
	}
	return retractionsGone(ctx, tx, s.Party)
}

// retractionsGone has nothing stay of what a party was told that goes itself.
func retractionsGone(ctx context.Context, tx *sql.Tx, recipient holdfast.PartyID) error {
	_, err := tx.ExecContext(ctx, `UPDATE retraction SET state = $1, info_sealed = NULL WHERE recipient = $2`, RetractionGone, recipient)
	return err
}

// tell sends the messages of retractions that are written down.
func (g *Gate) tell(told []*retracting) {
	for _, r := range told {
		if len(r.messages) > 0 {
			g.Outbox.Queue(r.messages...)
		}
	}
}

// Retractions returns how many recipients of what an erasure destroyed were told, and
// how many of them have confirmed that it is gone with them.
func (g *Gate) Retractions(ctx context.Context, id holdfast.ErasureID) (told, acked int, err error) {
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN state = $1 THEN 1 END) FROM retraction WHERE erasure = $2`, RetractionAcked, id).Scan(&told, &acked)
	})
	return told, acked, err
}

// RetractionsTo returns what a recipient was told behind the one numbered after, oldest
// first.
func (g *Gate) RetractionsTo(ctx context.Context, recipient holdfast.PartyID, after int64, limit int) ([]Retraction, error) {
	return g.retractions(ctx, `recipient = $1 AND n > $2 ORDER BY n LIMIT $3`, recipient, after, limit)
}

// RetractionsOf returns who was told of an erasure, to the one whose data it covers.
func (g *Gate) RetractionsOf(ctx context.Context, by access.Principal, id holdfast.ErasureID) ([]Retraction, error) {
	e, err := g.Erasure(ctx, id)
	if err != nil {
		return nil, err
	}
	if by.Role != access.Owner || e.Party.IsZero() || by.Party != e.Party {
		return nil, holdfast.Errorf(holdfast.Denied, "the one whose data were erased sees who had them")
	}
	return g.retractions(ctx, `erasure = $1 ORDER BY n`, id)
}

func (g *Gate) retractions(ctx context.Context, where string, args ...any) ([]Retraction, error) {
	type row struct {
		Retraction
		box []byte
	}
	rows, err := catalog.Rows(ctx, g.Catalog, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.Number, &r.Erasure, &r.Recipient, &r.State, &r.box)
	}, `SELECT id, n, erasure, recipient, state, info_sealed FROM retraction WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read retractions: %w", err)
	}
	out := make([]Retraction, 0, len(rows))
	for _, r := range rows {
		if r.box != nil {
			plain, err := g.Vault.OpenField(ctx, vault.OfParty(r.Recipient), retractionTable, r.ID[:], "info", r.box)
			switch {
			case holdfast.KindOf(err) == holdfast.NotFound:
				r.State = RetractionGone
			case err != nil:
				return nil, err
			default:
				if err := json.Unmarshal(plain, &r.RetractionInfo); err != nil {
					return nil, errors.New("read retractions: one is damaged") // the parser's text could quote it
				}
			}
		}
		out = append(out, r.Retraction)
	}
	return out, nil
}

// Acknowledge is a recipient's word that what was retracted is gone with him.
func (g *Gate) Acknowledge(ctx context.Context, by access.Principal, id holdfast.RetractionID) (Retraction, error) {
	all, err := g.retractions(ctx, `id = $1 AND recipient = $2`, id, by.Party)
	if err != nil {
		return Retraction{}, err
	}
	if len(all) == 0 || all[0].State == RetractionGone {
		return Retraction{}, holdfast.Errorf(holdfast.NotFound, "there is no such retraction")
	}
	r := all[0]
	if r.State == RetractionAcked {
		return r, nil // again, as after a lost answer
	}
	e, err := g.Erasure(ctx, r.Erasure)
	if err != nil {
		return r, err
	}
	r.State, r.Acked, r.By = RetractionAcked, time.Now().UTC(), by.Credential.String()
	box, err := g.sealRetraction(ctx, r)
	if err != nil {
		return r, err
	}
	records := map[vault.Owner]bool{vault.OfParty(r.Recipient): true}
	if whose := vault.OfParty(e.Party); !e.Party.IsZero() && g.Vault.HasOwner(whose) {
		records[whose] = true
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE retraction SET state = $1, info_sealed = $2 WHERE id = $3 AND state = $4`, r.State, box, r.ID, RetractionOpen); err != nil {
			return err
		}
		if err := takeBackAcked(ctx, tx, r); err != nil {
			return err
		}
		for on := range maps.Keys(records) {
			if _, err := g.Ledger.Append(ctx, tx, on, "retraction acknowledged", struct {
				Retraction holdfast.RetractionID `json:"retraction"`
				Erasure    holdfast.ErasureID    `json:"erasure"`
				Recipient  holdfast.PartyID      `json:"recipient"`
				By         holdfast.CredentialID `json:"by"`
			}{r.ID, r.Erasure, r.Recipient, by.Credential}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("acknowledge retraction: %w", err)
	}
	return r, nil
}
