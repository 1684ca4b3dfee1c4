package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// ledger checks what the ledger gave out.
func (c *verifyCmd) ledger(a *app, text []byte) error {
	older, err := c.older()
	if err != nil {
		return err
	}
	switch {
	case ledger.IsSlice(text):
		return c.slice(a, text, older)
	case ledger.IsProof(text):
		return c.proof(a, text, older)
	case checkpoint.IsConsistency(text):
		return c.growth(a, text, older)
	}
	if _, err := checkpoint.Unverified(text); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "%s is no export, certificate, receipt, report or proof", c.Path)
	}
	return c.checkpoint(a, text, older)
}

// older reads what was kept from before, if it was given.
func (c *verifyCmd) older() (*ledger.Older, error) {
	if c.Since == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.Since)
	if err != nil {
		return nil, fileError("older file", err)
	}
	old, err := ledger.ReadOlder(text, c.key())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Since, err)
	}
	return &old, nil
}

func (c *verifyCmd) slice(a *app, text []byte, older *ledger.Older) error {
	var rows [][]string
	r, err := ledger.CheckSlice(bytes.NewReader(text), c.key(), older, func(_ ledger.Opening, e ledger.Event) error {
		rows = append(rows, []string{fmt.Sprint(e.Seq), fmt.Sprint(e.Index), when(e.Time), e.Kind, string(e.Data)})
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.witnessed(r.Checkpoint); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	if err := printTable(a.stdout, []string{"SEQ", "INDEX", "TIME", "KIND", "DATA"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\n%d entries of the record %s without a gap, in a ledger of %d leaves.\n", r.Entries, cell(r.Record), r.Size)
	if older != nil {
		fmt.Fprintf(a.stdout, "It begins with the %d leaves of the older one, whose entries are all there.\n", r.Since)
	}
	c.good(a, r.Verifier)
	return nil
}

func (c *verifyCmd) proof(a *app, text []byte, older *ledger.Older) error {
	if older != nil {
		return usagef("a proof of one entry does not say what the ledger was before: give --since with a slice, or with a proof of growth")
	}
	p, err := ledger.ParseProof(text)
	if err != nil {
		return err
	}
	e, err := p.Check(c.key())
	if err != nil {
		return err
	}
	if err := c.witnessed(p.Checkpoint); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, e)
	}
	if err := printTable(a.stdout, []string{"INDEX", "TIME", "KIND", "DATA"}, [][]string{{fmt.Sprint(e.Index), when(e.Time), e.Kind, string(e.Data)}}); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	c.good(a, p.Verifier)
	return nil
}

// growth checks a proof that the ledger only grew.
func (c *verifyCmd) growth(a *app, text []byte, older *ledger.Older) error {
	if older == nil || c.Key == nil {
		return usagef("a proof of growth is checked against the older slice, proof or checkpoint that you kept, --since FILE, under the hub's key, --key KEY")
	}
	var g checkpoint.Consistency
	if err := g.UnmarshalText(text); err != nil {
		return err
	}
	to, err := checkpoint.Parse(g.Note, *c.Key)
	if err != nil {
		return err
	}
	if g.Old != older.Checkpoint.Size {
		return holdfast.Errorf(holdfast.Invalid, "the proof is from %d leaves on, the older checkpoint has %d: make one with --from %d", g.Old, older.Checkpoint.Size, older.Checkpoint.Size)
	}
	if err := checkpoint.Grown(g.Hashes, g.Old, older.Checkpoint.Root, to.Size, to.Root); err != nil {
		return err
	}
	return c.head(a, to)
}

// checkpoint checks a checkpoint alone; with an older one of the same size, that they
// are of one tree.
func (c *verifyCmd) checkpoint(a *app, text []byte, older *ledger.Older) error {
	if c.Key == nil {
		return usagef("a checkpoint does not carry the key that signed it: give the hub's with --key, as holdfast ledger show prints it")
	}
	to, err := checkpoint.Parse(text, *c.Key)
	if err != nil {
		return err
	}
	if older != nil {
		if older.Checkpoint.Size != to.Size {
			return usagef("two checkpoints of different sizes need a proof of growth between them: holdfast ledger prove --from %d", older.Checkpoint.Size)
		}
		if err := checkpoint.Grown(nil, to.Size, older.Checkpoint.Root, to.Size, to.Root); err != nil {
			return err
		}
	}
	return c.head(a, to)
}

func (c *verifyCmd) head(a *app, to checkpoint.Checkpoint) error {
	if err := c.witnessed(string(to.Note)); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, struct {
			Origin string `json:"origin"`
			Size   uint64 `json:"size"`
			Root   string `json:"root"`
		}{to.Origin, to.Size, to.Root.String()})
	}
	fmt.Fprintf(a.stdout, "%s, %d leaves, root %s.\n", cell(to.Origin), to.Size, to.Root)
	c.good(a, "")
	return nil
}

// witnessed checks that enough of the named witnesses cosigned a checkpoint.
func (c *verifyCmd) witnessed(signed string) error {
	if len(c.Witness) == 0 {
		return nil
	}
	keys := make([]*checkpoint.Witness, len(c.Witness))
	for i, text := range c.Witness {
		var err error
		if keys[i], err = checkpoint.ParseWitness(text); err != nil {
			return err
		}
	}
	need := c.Witnesses
	if need == 0 {
		need = len(keys)
	}
	by := checkpoint.Cosigned([]byte(signed), keys...)
	var missing []string
	for _, k := range keys {
		if _, ok := by[k.Name()]; !ok {
			missing = append(missing, k.Name())
		}
	}
	slices.Sort(missing)
	if len(by) < need {
		return holdfast.Errorf(holdfast.Invalid, "%d of %d witnesses cosigned, %d are needed; missing: %s", len(by), len(keys), need, missing)
	}
	return nil
}
