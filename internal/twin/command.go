package twin

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// States of a command.
const (
	Queued    = "queued"    // durable, waits for the device
	Delivered = "delivered" // the device has it
	Accepted  = "accepted"  // the device has said that it will carry it out
	Done      = "done"      // the device has said that it did
	Failed    = "failed"    // the device has said that it could not
	Expired   = "expired"   // it was not delivered, or not answered, in time
	Cancelled = "cancelled" // taken back before it was delivered, or the device changed hands
)

// waiting are the states of a command that has not ended.
func waiting(state string) bool { return state == Queued || state == Delivered || state == Accepted }

// Command is something that a device is to do.
type Command struct {
	ID       holdfast.CommandID
	Device   holdfast.DeviceID
	N        int64 // 1, 2, 3, ... of this device's
	Name     string
	Args     json.RawMessage // null, if none were given
	Reason   string          // in words; may be empty
	Purpose  holdfast.Purpose
	By       holdfast.CredentialID
	State    string
	Sent     time.Time
	Expires  time.Time
	Given    time.Time // when the device had it
	Accepted time.Time
	Ended    time.Time
	Result   json.RawMessage // nil: none

	assignment holdfast.AssignmentID
	whose      holdfast.PartyID
	key        []byte // hash of the sender's key for it
}

// HasEnded reports whether nothing becomes of a command any more.
func (c Command) HasEnded() bool { return !waiting(c.State) }

// commandInfo is the sealed part but for arguments and result.
type commandInfo struct {
	Name     string                `json:"name"`
	Reason   string                `json:"reason,omitempty"`
	Purpose  holdfast.Purpose      `json:"purpose"`
	By       holdfast.CredentialID `json:"by"`
	Whose    holdfast.PartyID      `json:"whose"`
	Sent     int64                 `json:"sent"`
	Expires  int64                 `json:"expires"`
	Given    int64                 `json:"given,omitempty"`
	Accepted int64                 `json:"accepted,omitempty"`
	Ended    int64                 `json:"ended,omitempty"`
}

// commandEvent is the ledger's payload of what becomes of a command: ids, so that the
// record of its owner tells nothing of a device that is erased.
type commandEvent struct {
	Command holdfast.CommandID    `json:"command"`
	Device  holdfast.DeviceID     `json:"device"`
	By      holdfast.CredentialID `json:"by,omitzero"`
	Purpose holdfast.Purpose      `json:"purpose,omitempty"`
}

// Spec is what to send.
type Spec struct {
	Device holdfast.DeviceID
	Name   string
	Args   json.RawMessage // empty: null
	Reason string
	Life   time.Duration // 0: an hour
	Key    string        // the sender's own name for this command: sent again it is the same one
}

func (s *Spec) check() error {
	if err := holdfast.CheckName("command", s.Name); err != nil {
		return err
	}
	if len(s.Args) == 0 {
		s.Args = json.RawMessage("null")
	}
	var err error
	if s.Args, err = checked("what a command carries", s.Args, MaxArgs); err != nil {
		return err
	}
	if s.Life == 0 {
		s.Life = Life
	}
	switch {
	case s.Life < time.Second:
		return holdfast.Errorf(holdfast.Invalid, "a command expires in the future: give it at least a second")
	case s.Life > MaxLife:
		return holdfast.Errorf(holdfast.Invalid, "a command lives at most %d days", MaxLife/(24*time.Hour))
	case len(s.Key) > MaxKey:
		return holdfast.Errorf(holdfast.Invalid, "a command's key has at most %d bytes", MaxKey)
	case len(s.Reason) > MaxReason || !utf8.ValidString(s.Reason) ||
		slices.ContainsFunc([]rune(s.Reason), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }):
		return holdfast.Errorf(holdfast.Invalid, "a reason is text that can be printed, of at most %d bytes", MaxReason)
	}
	return nil
}

// Send puts a command in a device's queue. It is durable when it returns. The same
// key with the same name and arguments, of the same party for the same device, is the
// command that was sent first; with others it is a Conflict.
func (s *Store) Send(ctx context.Context, by Caller, spec Spec) (Command, error) {
	if err := spec.check(); err != nil {
		return Command{}, err
	}
	defer s.change(spec.Device)()
	st, purpose, err := s.standing(ctx, by, spec.Device)
	if err == nil {
		err = st.Refused
	}
	if err != nil {
		return Command{}, err
	}
	c := Command{ID: holdfast.NewID[holdfast.CommandID](), Device: st.Device, Name: spec.Name, Args: spec.Args, Reason: spec.Reason, Purpose: purpose,
		By: by.Credential, State: Queued, Sent: s.now(), assignment: st.Assignment, whose: st.Whose}
	c.Expires = c.Sent.Add(spec.Life)
	if spec.Key != "" {
		if c.key, err = s.keys.Hash(ctx, "command key", by.Party.String()+"\x00"+st.Device.String()+"\x00"+spec.Key); err != nil {
			return Command{}, err
		}
		if have, ok, err := s.sentBefore(ctx, c); ok || err != nil {
			return have, err
		}
	}
	if err := s.room(ctx, st.Device); err != nil {
		return Command{}, err
	}
	if err := s.insert(ctx, &c, by); err != nil {
		return Command{}, fmt.Errorf("send command: %w", err)
	}
	s.metrics.count(Queued)
	s.changed(st)
	return c, nil
}

// sentBefore finds the command of a sender's key.
func (s *Store) sentBefore(ctx context.Context, c Command) (Command, bool, error) {
	all, err := s.commands(ctx, `key_hash = $1`, c.key)
	if err != nil || len(all) == 0 {
		return Command{}, false, err
	}
	have := all[0]
	if err := s.openArgs(ctx, &have); err != nil {
		return Command{}, false, err
	}
	if have.Name != c.Name || string(have.Args) != string(c.Args) {
		return Command{}, false, holdfast.Errorf(holdfast.Conflict, "another command was sent with this key: it is %s; give this one a key of its own", have.ID)
	}
	return s.shown(have), true, nil
}

// room refuses a command for which a device's queue has no place, after what has
// expired has left it.
func (s *Store) room(ctx context.Context, d holdfast.DeviceID) error {
	open, err := s.commands(ctx, `device = $1 AND state IN ('queued', 'delivered', 'accepted')`, d)
	if err != nil {
		return err
	}
	n := 0
	for _, c := range open {
		if s.over(c) {
			if err := s.expire(ctx, c); err != nil {
				return err
			}
			continue
		}
		n++
	}
	if n >= s.o.Waiting {
		return holdfast.Errorf(holdfast.TooLarge, "%d commands wait for this device, and no more may: cancel some, or wait until it has carried them out", n)
	}
	return nil
}

func (s *Store) insert(ctx context.Context, c *Command, by Caller) error {
	info, err := s.sealInfo(ctx, *c)
	if err != nil {
		return err
	}
	args, err := s.seal(ctx, c.assignment, commandTable, c.ID[:], "args", c.Args)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		var all int
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(n), 0) + 1, COUNT(*) FROM command WHERE device = $1`, c.Device).Scan(&c.N, &all); err != nil {
			return err
		}
		if all >= s.o.Kept { // the oldest that has ended makes room
			if _, err := tx.ExecContext(ctx, `DELETE FROM command WHERE id = (SELECT id FROM command WHERE device = $1
				AND state NOT IN ('queued', 'delivered', 'accepted') ORDER BY n LIMIT 1)`, c.Device); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO command (id, assignment, device, n, state, due, key_hash, info_sealed, args_sealed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, c.ID, c.assignment, c.Device, c.N, c.State, hour(c.Expires), c.key, info, args); err != nil {
			return err
		}
		_, err := s.ledger.Append(ctx, tx, vault.OfParty(c.whose), "command sent", commandEvent{c.ID, c.Device, by.Credential, c.Purpose})
		return err
	})
}

const (
	commandTable   = "command"
	commandColumns = `id, assignment, device, n, state, key_hash, info_sealed, result_sealed`
)

func hour(t time.Time) int64 { return t.Unix() / 3600 }

func (s *Store) seal(ctx context.Context, a holdfast.AssignmentID, table string, row []byte, column string, plain []byte) ([]byte, error) {
	return s.keys.SealField(ctx, vault.OfAssignment(a), table, row, column, plain)
}

func (s *Store) open(ctx context.Context, a holdfast.AssignmentID, table string, row []byte, column string, box []byte) ([]byte, error) {
	return s.keys.OpenField(ctx, vault.OfAssignment(a), table, row, column, box)
}

func (s *Store) sealInfo(ctx context.Context, c Command) ([]byte, error) {
	info, err := json.Marshal(commandInfo{c.Name, c.Reason, c.Purpose, c.By, c.whose, holdfast.Nanoseconds(c.Sent), holdfast.Nanoseconds(c.Expires),
		holdfast.Nanoseconds(c.Given), holdfast.Nanoseconds(c.Accepted), holdfast.Nanoseconds(c.Ended)})
	if err != nil {
		return nil, err
	}
	return s.seal(ctx, c.assignment, commandTable, c.ID[:], "info", info)
}

// commands reads commands in their order, without arguments; those of an assignment
// whose key is destroyed are left out.
func (s *Store) commands(ctx context.Context, where string, args ...any) ([]Command, error) {
	type row struct {
		Command
		info, result []byte
	}
	rows, err := catalog.Rows(ctx, s.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.assignment, &r.Device, &r.N, &r.State, &r.key, &r.info, &r.result)
	}, `SELECT `+commandColumns+` FROM command WHERE `+where+` ORDER BY device, n`, args...)
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	out := make([]Command, 0, len(rows))
	for _, r := range rows {
		c := r.Command
		text, err := s.open(ctx, c.assignment, commandTable, c.ID[:], "info", r.info)
		if err == nil && r.result != nil {
			c.Result, err = s.open(ctx, c.assignment, commandTable, c.ID[:], "result", r.result)
		}
		if holdfast.KindOf(err) == holdfast.NotFound && err != nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open command %s: %w", c.ID, err)
		}
		var i commandInfo
		if err := json.Unmarshal(text, &i); err != nil {
			return nil, fmt.Errorf("open command %s: %w", c.ID, err)
		}
		c.Name, c.Reason, c.Purpose, c.By, c.whose = i.Name, i.Reason, i.Purpose, i.By, i.Whose
		c.Sent, c.Expires, c.Given, c.Accepted, c.Ended = holdfast.Instant(i.Sent), holdfast.Instant(i.Expires), holdfast.Instant(i.Given), holdfast.Instant(i.Accepted), holdfast.Instant(i.Ended)
		out = append(out, c)
	}
	return out, nil
}

func (s *Store) openArgs(ctx context.Context, c *Command) error {
	var box []byte
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT args_sealed FROM command WHERE id = $1`, c.ID).Scan(&box)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return noCommand()
	}
	if err == nil {
		c.Args, err = s.open(ctx, c.assignment, commandTable, c.ID[:], "args", box)
	}
	if err != nil {
		return fmt.Errorf("open command %s: %w", c.ID, err)
	}
	return nil
}

func noCommand() error { return holdfast.Errorf(holdfast.NotFound, "there is no such command") }

// shown is a command as it stands now: its expiry may not be written down yet.
func (s *Store) shown(c Command) Command {
	if waiting(c.State) && s.over(c) {
		c.State, c.Ended = Expired, s.ends(c)
	}
	return c
}

// over reports whether a command's time is.
func (s *Store) over(c Command) bool { return !s.now().Before(s.ends(c)) }

// ends is when a command that nothing more is heard of ends: what the device has
// accepted it may take long for.
func (s *Store) ends(c Command) time.Time {
	if c.State == Accepted {
		return c.Accepted.Add(MaxLife)
	}
	return c.Expires
}

// DeviceOf returns whose command it is: to be shown to nobody who may not see that one.
func (s *Store) DeviceOf(ctx context.Context, id holdfast.CommandID) (d holdfast.DeviceID, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT device FROM command WHERE id = $1`, id).Scan(&d)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = noCommand()
	}
	return d, err
}

// Command returns one with its arguments to who may command its device.
func (s *Store) Command(ctx context.Context, by Caller, id holdfast.CommandID) (Command, error) {
	c, _, err := s.command(ctx, by, id)
	if err != nil {
		return Command{}, err
	}
	if err := s.openArgs(ctx, &c); err != nil {
		return Command{}, err
	}
	return s.shown(c), nil
}

// command returns a command, and how its device stands, to who may know of it: to
// anybody else it does not exist.
func (s *Store) command(ctx context.Context, by Caller, id holdfast.CommandID) (Command, Standing, error) {
	all, err := s.commands(ctx, `id = $1`, id)
	if err != nil {
		return Command{}, Standing{}, err
	}
	if len(all) == 0 {
		return Command{}, Standing{}, noCommand()
	}
	st, _, err := s.standing(ctx, by, all[0].Device)
	if k := holdfast.KindOf(err); err != nil && (k == holdfast.Denied || k == holdfast.NotFound) {
		return Command{}, st, noCommand()
	}
	return all[0], st, err
}

// Commands returns a device's commands, the newest first, without their arguments.
func (s *Store) Commands(ctx context.Context, by Caller, d holdfast.DeviceID) ([]Command, error) {
	if _, _, err := s.standing(ctx, by, d); err != nil {
		return nil, err
	}
	all, err := s.commands(ctx, `device = $1`, d)
	for i, c := range all {
		all[i] = s.shown(c)
	}
	slices.Reverse(all)
	return all, err
}

// Wait returns a command when it has ended, or as it is when a time is over.
func (s *Store) Wait(ctx context.Context, by Caller, id holdfast.CommandID, most time.Duration) (Command, error) {
	c, err := s.Command(ctx, by, id)
	if err != nil || c.HasEnded() || most <= 0 {
		return c, err
	}
	x, err := s.people.enter(c.Device)
	if err != nil {
		return c, err
	}
	defer x.leave()
	for until := s.now().Add(most); ; {
		if c, err = s.Command(ctx, by, id); err != nil || c.HasEnded() {
			return c, err
		}
		left := min(until.Sub(s.now()), s.ends(c).Sub(s.now()), 10*time.Second) // who may is asked again
		if !s.now().Before(until) {
			return c, nil
		}
		if err := x.wait(ctx, max(left, time.Millisecond)); err != nil {
			if errors.Is(err, errOver) {
				err = nil
			}
			return c, err
		}
	}
}

// Cancel takes a command back that the device does not have yet.
func (s *Store) Cancel(ctx context.Context, by Caller, id holdfast.CommandID) (Command, error) {
	c, _, err := s.command(ctx, by, id)
	if err != nil {
		return Command{}, err
	}
	defer s.change(c.Device)()
	c, st, err := s.command(ctx, by, id)
	if err != nil {
		return Command{}, err
	}
	if c = s.shown(c); c.State != Queued {
		return Command{}, holdfast.Errorf(holdfast.Conflict, "the command is %s: only one that waits for its device is cancelled", c.State)
	}
	if c, err = s.end(ctx, c, Cancelled, by.Credential, nil); err != nil {
		return Command{}, fmt.Errorf("cancel command: %w", err)
	}
	s.changed(st)
	return c, nil
}

// end writes down what has become of a command, under its device's lock.
func (s *Store) end(ctx context.Context, c Command, state string, by holdfast.CredentialID, result []byte) (Command, error) {
	was := c.State
	c.State, c.Ended, c.Result = state, s.now(), result
	if state == Expired {
		ends := s.ends(Command{State: was, Accepted: c.Accepted, Expires: c.Expires})
		c.Ended = ends
	}
	return c, s.move(ctx, c, was, "command "+state, by)
}

// move writes a command's new state, with the event if it has one.
func (s *Store) move(ctx context.Context, c Command, was, event string, by holdfast.CredentialID) error {
	info, err := s.sealInfo(ctx, c)
	if err != nil {
		return err
	}
	var result []byte
	if c.Result != nil {
		if result, err = s.seal(ctx, c.assignment, commandTable, c.ID[:], "result", c.Result); err != nil {
			return err
		}
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `UPDATE command SET state = $1, info_sealed = $2, result_sealed = $3 WHERE id = $4 AND state = $5`,
			c.State, info, result, c.ID, was)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, noCommand())
		}
		if event == "" {
			return nil
		}
		_, err = s.ledger.Append(ctx, tx, vault.OfParty(c.whose), event, commandEvent{c.ID, c.Device, by, c.Purpose})
		return err
	})
	if err == nil {
		s.metrics.count(c.State)
	}
	return err
}

// expire ends a command whose time is over.
func (s *Store) expire(ctx context.Context, c Command) error {
	_, err := s.end(ctx, c, Expired, holdfast.CredentialID{}, nil)
	return err
}
