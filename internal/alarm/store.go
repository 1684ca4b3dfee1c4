package alarm

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// caller is who asks.
type caller = access.Principal

// named is what a stream is called.
type named struct {
	Device holdfast.DeviceID `json:"device,omitzero"`
	Name   string            `json:"name,omitempty"`
	Stream string            `json:"stream,omitempty"`
	Unit   string            `json:"unit,omitempty"`
	Owner  holdfast.PartyID  `json:"owner,omitzero"`
}

// event is something that happened to a rule.
type event struct {
	At       int64      `json:"at"`
	Kind     string     `json:"kind"` // fired | resolved | acknowledged | muted | unmuted | denied | allowed
	Instance instanceID `json:"instance,omitzero"`
	named
	Value float64               `json:"value,omitempty"`
	Text  string                `json:"text,omitempty"`
	By    holdfast.CredentialID `json:"by,omitzero"`
	Note  string                `json:"note,omitempty"`
	Until int64                 `json:"until,omitempty"`

	assignment holdfast.AssignmentID
}

// sealed is a row about to be written.
type sealed struct {
	i   *instance
	row event
	n   int64
	box []byte
}

// what is kept of an instance, sealed.
type instanceInfo struct {
	Machine machine `json:"machine"`
	Kept    kept    `json:"kept"`
}

// write makes what a look came to durable: what moved, what happened, what is to be
// sent, and that it is. The caller has r.mu.
func (a *Alarms) write(ctx context.Context, l *looking, drafts []*outbox.Draft, said int) error {
	r := l.r
	full := r.saved.IsZero() || l.now-r.saved.UnixNano() >= int64(saveEvery)
	moved := full || len(l.events)+len(l.gone)+len(drafts) > 0 || r.state.Denied != ""
	for _, i := range r.instances {
		i.dirty = i.dirty || full
		moved = moved || i.dirty
	}
	if !moved {
		return nil
	}
	if full {
		r.state.Settled = r.state.Looked
	}
	if err := a.commit(ctx, l, drafts, said); err != nil {
		return err
	}
	if full {
		r.saved = time.Unix(0, l.now)
	}
	return nil
}

func (a *Alarms) commit(ctx context.Context, l *looking, drafts []*outbox.Draft, said int) error {
	r := l.r
	instances, events, err := a.boxes(ctx, l)
	if err != nil {
		return err
	}
	state, err := vault.SealJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "state", r.state)
	if err != nil {
		return err
	}
	err = a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE alarm_rule SET state_sealed = $1 WHERE id = $2`, state, r.id); err != nil {
			return err
		}
		for _, id := range l.gone {
			if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_instance WHERE rule = $1 AND id = $2`, r.id, id); err != nil {
				return err
			}
		}
		for _, s := range instances {
			if _, err := tx.ExecContext(ctx, `INSERT INTO alarm_instance (rule, id, assignment, info_sealed) VALUES ($1, $2, $3, $4)
				ON CONFLICT (rule, id) DO UPDATE SET info_sealed = excluded.info_sealed`, r.id, s.i.id, s.i.assignment, s.box); err != nil {
				return err
			}
		}
		for _, s := range events {
			if _, err := tx.ExecContext(ctx, `INSERT INTO alarm_event (rule, n, assignment, day, info_sealed) VALUES ($1, $2, $3, $4, $5)`,
				r.id, s.n, s.row.assignment, l.now/int64(24*time.Hour), s.box); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_event WHERE rule = $1 AND n <= $2`, r.id, r.events+int64(len(events))-keepEvents); err != nil {
				return err
			}
		}
		for _, d := range drafts {
			if err := d.Insert(ctx, tx); err != nil {
				return err
			}
		}
		if said > 0 {
			_, err := a.Ledger.Append(ctx, tx, vault.OfParty(r.party), "alarm sent", ruleEvent{Alarm: r.id, Purpose: r.spec.Purpose, Count: said})
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.events += int64(len(events))
	for _, s := range instances {
		s.i.dirty = false
	}
	return nil
}

// boxes seals what is written. What is about somebody who was erased is left out.
func (a *Alarms) boxes(ctx context.Context, l *looking) (instances, events []sealed, err error) {
	r := l.r
	for _, i := range r.instances {
		if !i.dirty {
			continue
		}
		row := instanceInfo{i.machine, i.kept}
		if i.assignment.IsZero() {
			row.Machine.Value, row.Machine.Text = 0, ""
		}
		box, err := vault.SealJSON(ctx, a.Vault, r.keeper(i.assignment), "alarm_instance", append(r.id[:], i.id[:]...), "info", row)
		switch {
		case vault.Gone(err):
		case err != nil:
			return nil, nil, err
		default:
			instances = append(instances, sealed{i: i, box: box})
		}
	}
	for _, e := range l.events {
		n := r.events + int64(len(events)) + 1
		box, err := vault.SealJSON(ctx, a.Vault, r.keeper(e.assignment), "alarm_event", append(r.id[:], byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), "info", e)
		switch {
		case vault.Gone(err):
		case err != nil:
			return nil, nil, err
		default:
			events = append(events, sealed{row: e, n: n, box: box})
		}
	}
	return instances, events, nil
}

// save writes all that a rule knows.
func (a *Alarms) save(ctx context.Context, r *rule, events []event) error {
	now := a.now().UnixNano()
	r.state.Settled = r.state.Looked
	for _, i := range r.instances {
		i.dirty = true
	}
	return a.commit(ctx, &looking{a: a, r: r, now: now, events: events}, nil, 0)
}

func (a *Alarms) load(ctx context.Context) error {
	type ruleRow struct {
		r           *rule
		info, state []byte
	}
	rows, err := catalog.Rows(ctx, a.Catalog, func(q *sql.Rows) (w ruleRow, err error) {
		w.r = &rule{instances: make(map[instanceID]*instance)}
		return w, q.Scan(&w.r.id, &w.r.party, &w.info, &w.state)
	}, `SELECT id, party, info_sealed, state_sealed FROM alarm_rule`)
	if err != nil {
		return err
	}
	for _, w := range rows {
		r := w.r
		err := vault.OpenJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "info", w.info, &r.spec)
		if err == nil {
			err = vault.OpenJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "state", w.state, &r.state)
		}
		if vault.Gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		r.state.Looked = r.state.Settled // what every instance has seen
		r.saved = a.now().Add(-rand.N(saveEvery))
		a.rules[r.id] = r
	}
	if err := a.loadInstances(ctx); err != nil {
		return err
	}
	type last struct {
		rule holdfast.AlarmID
		n    int64
	}
	lasts, err := catalog.Rows(ctx, a.Catalog, func(q *sql.Rows) (w last, err error) { return w, q.Scan(&w.rule, &w.n) }, `SELECT rule, MAX(n) FROM alarm_event GROUP BY rule`)
	for _, w := range lasts {
		if r := a.rules[w.rule]; r != nil {
			r.events = w.n
		}
	}
	return err
}

func (a *Alarms) loadInstances(ctx context.Context) error {
	type row struct {
		rule holdfast.AlarmID
		i    *instance
		box  []byte
	}
	rows, err := catalog.Rows(ctx, a.Catalog, func(q *sql.Rows) (w row, err error) {
		w.i = &instance{}
		return w, q.Scan(&w.rule, &w.i.id, &w.i.assignment, &w.box)
	}, `SELECT rule, id, assignment, info_sealed FROM alarm_instance`)
	if err != nil {
		return err
	}
	for _, w := range rows {
		r := a.rules[w.rule]
		if r == nil {
			continue
		}
		var in instanceInfo
		switch err := vault.OpenJSON(ctx, a.Vault, r.keeper(w.i.assignment), "alarm_instance", append(r.id[:], w.i.id[:]...), "info", w.box, &in); {
		case vault.Gone(err):
			continue
		case err != nil:
			return err
		}
		w.i.machine, w.i.kept = in.Machine, in.Kept
		r.instances[w.i.id] = w.i
	}
	return nil
}

// readEvents returns a rule's history, the newest first.
func (a *Alarms) readEvents(ctx context.Context, r *rule) ([]event, error) {
	type row struct {
		n          int64
		assignment holdfast.AssignmentID
		box        []byte
	}
	rows, err := catalog.Rows(ctx, a.Catalog, func(q *sql.Rows) (w row, err error) { return w, q.Scan(&w.n, &w.assignment, &w.box) },
		`SELECT n, assignment, info_sealed FROM alarm_event WHERE rule = $1 ORDER BY n DESC`, r.id)
	if err != nil {
		return nil, err
	}
	var all []event
	for _, w := range rows {
		var e event
		switch err := vault.OpenJSON(ctx, a.Vault, r.keeper(w.assignment), "alarm_event", append(r.id[:], byte(w.n>>24), byte(w.n>>16), byte(w.n>>8), byte(w.n)), "info", w.box, &e); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		e.assignment = w.assignment
		all = append(all, e)
	}
	return all, nil
}

func (a *Alarms) prune(ctx context.Context) error {
	return a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM alarm_event WHERE day < $1`, dayOf(a.now())-keepDays)
		return err
	})
}
