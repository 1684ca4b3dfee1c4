package twin

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Twin is what is wanted of a device, and what it says of itself. A version is 0 for
// a document that was never set, which is empty.
type Twin struct {
	Device          holdfast.DeviceID
	DesiredVersion  int64
	Desired         json.RawMessage
	DesiredChanged  time.Time
	ReportedVersion int64
	Reported        json.RawMessage
	ReportedChanged time.Time

	assignment holdfast.AssignmentID
}

// Delta returns what of the desired document the device has not reported.
func (t Twin) Delta() (json.RawMessage, error) {
	want, err := object("a document", t.Desired)
	if err != nil {
		return nil, err
	}
	have, err := object("a document", t.Reported)
	if err != nil {
		return nil, err
	}
	return stored("a document", delta(want, have))
}

// Desired is a desired document as its device gets it.
type Desired struct {
	Version int64           `json:"version"`
	State   json.RawMessage `json:"state"`
}

// sealedDocument is what is sealed of one.
type sealedDocument struct {
	State   json.RawMessage `json:"state"`
	Changed int64           `json:"changed"`
}

// desiredEvent is the ledger's payload of "desired changed": ids and a counter.
type desiredEvent struct {
	Device  holdfast.DeviceID     `json:"device"`
	Version int64                 `json:"version"`
	By      holdfast.CredentialID `json:"by"`
	Purpose holdfast.Purpose      `json:"purpose"`
}

const twinTable = "twin"

// twin reads a device's documents; those of one that has none are empty.
func (s *Store) twin(ctx context.Context, d holdfast.DeviceID) (Twin, error) {
	type row struct {
		Twin
		desired, reported []byte
	}
	t := Twin{Device: d, Desired: json.RawMessage("{}"), Reported: json.RawMessage("{}")}
	rows, err := catalog.Rows(ctx, s.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.assignment, &r.DesiredVersion, &r.ReportedVersion, &r.desired, &r.reported)
	}, `SELECT assignment, desired_version, reported_version, desired_sealed, reported_sealed FROM twin WHERE device = $1`, d)
	if err != nil || len(rows) == 0 {
		return t, err
	}
	r := rows[0]
	for _, x := range []struct {
		column  string
		box     []byte
		state   *json.RawMessage
		changed *time.Time
	}{{"desired", r.desired, &t.Desired, &t.DesiredChanged}, {"reported", r.reported, &t.Reported, &t.ReportedChanged}} {
		if x.box == nil {
			continue
		}
		text, err := s.open(ctx, r.assignment, twinTable, d[:], x.column, x.box)
		if err != nil {
			return t, fmt.Errorf("open %s state: %w", x.column, err)
		}
		var doc sealedDocument
		if err := json.Unmarshal(text, &doc); err != nil {
			return t, fmt.Errorf("open %s state: %w", x.column, err)
		}
		*x.state, *x.changed = doc.State, holdfast.Instant(doc.Changed)
	}
	t.assignment, t.DesiredVersion, t.ReportedVersion = r.assignment, r.DesiredVersion, r.ReportedVersion
	return t, nil
}

// Twin returns a device's documents to who may command it.
func (s *Store) Twin(ctx context.Context, by Caller, d holdfast.DeviceID) (Twin, error) {
	if _, _, err := s.standing(ctx, by, d); err != nil {
		return Twin{}, err
	}
	return s.twin(ctx, d)
}

// Change is a new document, or a merge patch (RFC 7396) of the one that there is.
type Change struct {
	Patch bool
	State []byte
}

// apply returns the document that a change makes.
func (c Change) apply(what string, have json.RawMessage) (json.RawMessage, error) {
	given, err := object(what, c.State)
	if err != nil {
		return nil, err
	}
	if c.Patch {
		base, err := object(what, have)
		if err != nil {
			return nil, err
		}
		given = merge(base, given)
	}
	return stored(what, given)
}

// SetDesired changes what is wanted of a device. It is durable when it returns. With
// a version it is a Conflict if that is not the one that there is; -1 is any. What
// changes nothing has no new version.
func (s *Store) SetDesired(ctx context.Context, by Caller, d holdfast.DeviceID, version int64, c Change) (Twin, error) {
	defer s.change(d)()
	st, purpose, err := s.standing(ctx, by, d)
	if err == nil {
		err = st.Refused
	}
	if err != nil {
		return Twin{}, err
	}
	t, err := s.twin(ctx, d)
	if err != nil {
		return Twin{}, err
	}
	if version >= 0 && version != t.DesiredVersion {
		return Twin{}, holdfast.Errorf(holdfast.Conflict, "the desired state is of version %d, not %d: read it again", t.DesiredVersion, version)
	}
	state, err := c.apply("the desired state", t.Desired)
	if err != nil || t.DesiredVersion > 0 && bytes.Equal(state, t.Desired) {
		return t, err
	}
	t.Desired, t.DesiredChanged, t.assignment = state, s.now(), st.Assignment
	t.DesiredVersion++
	err = s.writeTwin(ctx, t, "desired", state, func(tx *sql.Tx) error {
		_, err := s.ledger.Append(ctx, tx, vault.OfParty(st.Whose), "desired changed", desiredEvent{d, t.DesiredVersion, by.Credential, purpose})
		return err
	})
	if err != nil {
		return Twin{}, fmt.Errorf("set desired state: %w", err)
	}
	s.metrics.desired.Inc()
	s.changed(st)
	return t, nil
}

// writeTwin writes one of a device's two documents.
func (s *Store) writeTwin(ctx context.Context, t Twin, column string, state json.RawMessage, also func(*sql.Tx) error) error {
	text, err := json.Marshal(sealedDocument{state, s.now().UnixNano()})
	if err != nil {
		return err
	}
	box, err := s.seal(ctx, t.assignment, twinTable, t.Device[:], column, text)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO twin (device, assignment, desired_version, reported_version) VALUES ($1, $2, 0, 0)
			ON CONFLICT (device) DO NOTHING`, t.Device, t.assignment); err != nil {
			return err
		}
		set := `UPDATE twin SET desired_version = $1, desired_sealed = $2 WHERE device = $3`
		version := t.DesiredVersion
		if column == "reported" {
			set, version = `UPDATE twin SET reported_version = $1, reported_sealed = $2 WHERE device = $3`, t.ReportedVersion
		}
		if _, err := tx.ExecContext(ctx, set, version, box, t.Device); err != nil {
			return err
		}
		return also(tx)
	})
}

// report is how a device's own state comes in one message.
type report struct {
	State json.RawMessage `json:"state"`
	Patch json.RawMessage `json:"patch"`
}

// ParseReport reads {"state":{...}}, which is all of a device's state, or
// {"patch":{...}}, a merge patch of it.
func ParseReport(payload []byte) (Change, error) {
	const form = `reported state is {"state":{...}}, all of it, or {"patch":{...}}, what has changed`
	b, err := checked("reported state", payload, MaxDocument+64)
	if err != nil {
		return Change{}, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r report
	if err := d.Decode(&r); err != nil || (r.State == nil) == (r.Patch == nil) {
		return Change{}, holdfast.Errorf(holdfast.Invalid, form)
	}
	if r.Patch != nil {
		return Change{true, r.Patch}, nil
	}
	return Change{false, r.State}, nil
}

// Report takes what a device, or its gateway for it, says of itself. It is durable
// when it returns; what changes nothing is not written again.
func (s *Store) Report(ctx context.Context, p Peer, child string, c Change) (version int64, err error) {
	if _, err := object("the reported state", c.State); err != nil {
		return 0, err
	}
	st, err := s.of(ctx, p, child)
	if err != nil {
		return 0, err
	}
	if err := s.paces.allow(st.Device, s.now()); err != nil {
		return 0, err
	}
	defer s.change(st.Device)()
	st, err = s.of(ctx, p, child)
	switch {
	case err != nil:
		return 0, err
	case st.Elsewhere:
		return 0, errElsewhere()
	case s.house.Stopped(st.Whose, st.Assignment, "reported"):
		return 0, holdfast.Errorf(holdfast.Denied, "collection was stopped by the one whose data it is")
	}
	t, err := s.twin(ctx, st.Device)
	if err != nil {
		return 0, err
	}
	state, err := c.apply("the reported state", t.Reported)
	if err != nil || t.ReportedVersion > 0 && bytes.Equal(state, t.Reported) {
		return t.ReportedVersion, err
	}
	t.Reported, t.assignment = state, st.Assignment
	t.ReportedVersion++
	if err := s.writeTwin(ctx, t, "reported", state, func(*sql.Tx) error { return nil }); err != nil {
		return 0, fmt.Errorf("take reported state: %w", err)
	}
	s.metrics.reported.Inc()
	s.people.changed(st)
	return t.ReportedVersion, nil
}

// DesiredFor returns what is wanted of a device to itself, once its version is another
// than the one that it has, or when a time is over.
func (s *Store) DesiredFor(ctx context.Context, p Peer, child string, have int64, most time.Duration) (Desired, error) {
	w, err := s.devices.enter(p.Device)
	if err != nil {
		return Desired{}, err
	}
	defer w.leave()
	for until := s.now().Add(most); ; {
		st, err := s.of(ctx, p, child)
		if err != nil {
			return Desired{}, err
		}
		t, err := s.twin(ctx, st.Device)
		if err != nil {
			return Desired{}, err
		}
		left := until.Sub(s.now())
		switch {
		case st.Elsewhere && left <= 0:
			return Desired{}, holdfast.Errorf(holdfast.Unavailable, "by the device's assignments this time is somebody else's: ask again later")
		case !st.Elsewhere && (t.DesiredVersion != have || left <= 0):
			return Desired{t.DesiredVersion, t.Desired}, nil
		}
		if err := w.wait(ctx, min(left, lookAgain)); err != nil {
			if errors.Is(err, errOver) {
				until = s.now()
				continue
			}
			return Desired{}, err
		}
	}
}
