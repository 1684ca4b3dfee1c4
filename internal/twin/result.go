package twin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// answer is what a device says of a command.
type answer struct {
	Status string          `json:"status"`
	Result json.RawMessage `json:"result"`
}

func parseAnswer(payload []byte) (a answer, err error) {
	const form = `a result is {"status":"done"|"failed"|"accepted","result":...}`
	b, err := checked("a result", payload, MaxArgs)
	if err != nil {
		return a, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, holdfast.Errorf(holdfast.Invalid, form)
	}
	switch a.Status {
	case Done, Failed, Accepted:
		return a, nil
	}
	return a, holdfast.Errorf(holdfast.Invalid, form)
}

// Result takes what a device, or its gateway for it, says of a command. It is durable
// when it returns. The same said again is taken for what it is; anything else about a
// command that has ended is a Conflict.
func (s *Store) Result(ctx context.Context, p Peer, child, id string, payload []byte) error {
	a, err := parseAnswer(payload)
	if err != nil {
		return err
	}
	none := holdfast.Errorf(holdfast.NotFound, "there is no such command for this device")
	want, err := holdfast.ParseID[holdfast.CommandID](id)
	if err != nil {
		return none
	}
	st, err := s.of(ctx, p, child)
	if err != nil {
		return err
	}
	defer s.change(st.Device)()
	if st, err = s.of(ctx, p, child); err != nil {
		return err
	}
	if st.Elsewhere {
		return errElsewhere()
	}
	all, err := s.commands(ctx, `id = $1 AND device = $2`, want, st.Device)
	if err != nil {
		return err
	}
	if len(all) == 0 || all[0].assignment != st.Assignment {
		return none
	}
	c := all[0]
	was := c.State
	if repeats(c, a) {
		return nil
	}
	if c = s.shown(c); c.HasEnded() {
		return holdfast.Errorf(holdfast.Conflict, "the command is %s: nothing more is taken for it", c.State)
	}
	if c.Given.IsZero() {
		c.Given = s.now()
	}
	c.Result = a.Result
	event := ""
	switch c.State = a.Status; a.Status {
	case Accepted:
		c.Accepted = s.now()
	default:
		c.Ended, event = s.now(), "command "+a.Status
	}
	if err := s.move(ctx, c, was, event, holdfast.CredentialID{}); err != nil {
		return fmt.Errorf("take result: %w", err)
	}
	s.changed(st)
	return nil
}

// repeats reports whether a device has said this already: of a command that is done,
// that it was accepted, too.
func repeats(c Command, a answer) bool {
	if (c.State == Done || c.State == Failed) && a.Status == Accepted {
		return true
	}
	return c.State == a.Status && bytes.Equal(c.Result, a.Result)
}
