package ingest

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// noteEvery is how long what was noted of a subscription may wait to be durable: a
// crash then gives the client that much again.
const noteEvery = 5 * time.Second

// note is what was said last of a subscription and is not in the catalog yet.
type note struct {
	filter string
	about  []byte
}

// readSubscribed finds out which sessions have subscriptions, so that the many that
// have none are never asked for.
func (s *Sessions) readSubscribed(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT session FROM mqtt_subscription`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name []byte
		if err := rows.Scan(&name); err != nil {
			return err
		}
		if x := s.byName[string(name)]; x != nil {
			x.subbed = true
		}
	}
	return rows.Err()
}

// Siblings returns what is known of the subscriptions with one filter in all sessions
// of the same client.
func (s *Sessions) Siblings(ctx context.Context, name, filter string) (all [][]byte, err error) {
	s.mu.Lock()
	x := s.byName[name]
	var sessions []*session
	if x != nil {
		for y := range s.byDevice[x.who.device] {
			if y.subbed {
				sessions = append(sessions, y)
			}
		}
	}
	s.mu.Unlock()
	for _, x := range sessions {
		of, err := s.subscriptions(ctx, x)
		if err != nil {
			return nil, err
		}
		if about, ok := of[filter]; ok {
			all = append(all, about)
		}
	}
	return all, nil
}

func (s *Sessions) subscriptions(ctx context.Context, x *session) (map[string][]byte, error) {
	boxes := map[string][]byte{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT filter_hash, about_sealed FROM mqtt_subscription WHERE session = $1`, []byte(x.name))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var hash, box []byte
			if err := rows.Scan(&hash, &box); err != nil {
				return err
			}
			boxes[string(hash)] = box
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	out := make(map[string][]byte, len(boxes))
	for hash, box := range boxes {
		text, err := s.keys.OpenField(ctx, x.owner, subscriptionTable, subscriptionRow(x.name, []byte(hash)), "about", box)
		if err != nil {
			return nil, fmt.Errorf("open subscription: %w", err)
		}
		filter, about, err := splitSubscription(text)
		if err != nil {
			return nil, err
		}
		out[filter] = about
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range x.notes { // newer than the rows
		if _, ok := out[n.filter]; ok {
			out[n.filter] = n.about
		}
	}
	return out, nil
}

const subscriptionTable = "mqtt_subscription"

func subscriptionRow(session string, hash []byte) []byte {
	return append([]byte(session), hash...)
}

// The sealed part is the filter's length in two bytes, the filter, and what MQTT says.

func joinSubscription(filter string, about []byte) []byte {
	b := append([]byte{byte(len(filter) >> 8), byte(len(filter))}, filter...)
	return append(b, about...)
}

func splitSubscription(b []byte) (filter string, about []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(b[0])<<8+int(b[1]) {
		return "", nil, holdfast.Errorf(holdfast.Internal, "read subscription: it is damaged")
	}
	n := 2 + int(b[0])<<8 + int(b[1])
	return string(b[2:n]), b[n:], nil
}

// Keep makes a subscription of a session durable. A session that ends with its
// connection keeps none.
func (s *Sessions) Keep(ctx context.Context, name, filter string, about []byte) error {
	return s.put(ctx, name, []note{{filter, about}})
}

// Note says how far a subscription that is kept has got. It is durable within seconds.
func (s *Sessions) Note(name, filter string, about []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byName[name]
	if x == nil || !x.stored {
		return
	}
	if x.notes == nil {
		x.notes = map[string]note{}
	}
	x.notes[filter] = note{filter, about}
	s.noted[name] = struct{}{}
}

// Drop ends a subscription.
func (s *Sessions) Drop(ctx context.Context, name, filter string) error {
	hash, err := s.keys.Hash(ctx, "mqtt filter", filter)
	if err != nil {
		return err
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	x := s.byName[name]
	if x == nil || !x.stored {
		s.mu.Unlock()
		return nil
	}
	delete(x.notes, filter)
	s.mu.Unlock()
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM mqtt_subscription WHERE session = $1 AND filter_hash = $2`, []byte(name), hash)
		return err
	})
	if err != nil {
		return fmt.Errorf("end subscription: %w", err)
	}
	return nil
}

// sealedNote is a row of mqtt_subscription.
type sealedNote struct{ session, hash, box []byte }

func (s *Sessions) seal(ctx context.Context, x *session, n note) (sealedNote, error) {
	hash, err := s.keys.Hash(ctx, "mqtt filter", n.filter)
	if err != nil {
		return sealedNote{}, err
	}
	box, err := s.keys.SealField(ctx, x.owner, subscriptionTable, subscriptionRow(x.name, hash), "about", joinSubscription(n.filter, n.about))
	if err != nil {
		return sealedNote{}, fmt.Errorf("seal subscription: %w", err)
	}
	return sealedNote{[]byte(x.name), hash, box}, nil
}

// put writes what is said of a session's subscriptions.
func (s *Sessions) put(ctx context.Context, name string, notes []note) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	x := s.byName[name]
	gone := x == nil || !x.stored
	if !gone {
		x.subbed = true
		for _, n := range notes {
			delete(x.notes, n.filter)
		}
	}
	s.mu.Unlock()
	if gone {
		return nil
	}
	var rows []sealedNote
	for _, n := range notes {
		r, err := s.seal(ctx, x, n)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return s.write(ctx, `INSERT INTO mqtt_subscription (session, filter_hash, about_sealed) VALUES ($1, $2, $3)
		ON CONFLICT (session, filter_hash) DO UPDATE SET about_sealed = excluded.about_sealed`, rows)
}

func (s *Sessions) write(ctx context.Context, statement string, rows []sealedNote) error {
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, r := range rows {
			if _, err := tx.ExecContext(ctx, statement, r.session, r.hash, r.box); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save subscriptions: %w", err)
	}
	return nil
}

// saveNotes writes what was noted, of all sessions in one transaction. What belongs to
// somebody who is being erased goes with his session; what was noted of a subscription
// that has ended meanwhile does not bring it back.
func (s *Sessions) saveNotes(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	noted := s.noted
	s.noted = map[string]struct{}{}
	waiting := map[*session]map[string]note{}
	for name := range noted {
		if x := s.byName[name]; x != nil && x.stored && len(x.notes) > 0 {
			waiting[x], x.notes = x.notes, nil
		}
	}
	s.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	var rows []sealedNote
	for x, notes := range waiting {
		for _, n := range notes {
			r, err := s.seal(ctx, x, n)
			if holdfast.KindOf(err) == holdfast.NotFound {
				break
			}
			if err != nil {
				s.putBack(waiting)
				return err
			}
			rows = append(rows, r)
		}
	}
	err := s.write(ctx, `UPDATE mqtt_subscription SET about_sealed = $3 WHERE session = $1 AND filter_hash = $2`, rows)
	if err != nil {
		s.putBack(waiting)
	}
	return err
}

// putBack has notes that could not be written wait for the next time, unless there are
// newer ones.
func (s *Sessions) putBack(all map[*session]map[string]note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x, notes := range all {
		if s.byName[x.name] != x {
			continue
		}
		maps.Copy(notes, x.notes)
		x.notes = notes
		s.noted[x.name] = struct{}{}
	}
}
