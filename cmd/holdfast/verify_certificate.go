package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// certificate checks an erasure's certificate and says what of it is proven, what the
// hub states, and what is still open.
func (c *verifyCmd) certificate(a *app, text []byte) error {
	t, err := erasure.VerifyCertificate(text, c.key())
	if err != nil {
		return err
	}
	if err := c.witnessed(t.Ledger.Checkpoint); err != nil {
		return err
	}
	tpms, err := c.tpms(t)
	if err != nil {
		return err
	}
	if c.Redact != "" {
		if err := writeNew(c.Redact, erasure.Redact(text)); err != nil {
			return err
		}
	}
	if c.json() {
		return printJSON(a.stdout, struct {
			Version int              `json:"version"`
			Scope   *erasure.Opening `json:"opened,omitempty"`
			Pending []string         `json:"pending,omitempty"`
			TPMs    []tpmProof       `json:"tpms,omitempty"`
			erasure.Certificate
		}{t.Version, t.Opened, t.Pending(), tpms, t})
	}
	for _, part := range []struct {
		head string
		rows [][]string
	}{
		{"PROVEN HERE", slices.Concat(c.proven(t), tpmRows(tpms, tpmProof.proven))},
		{"STATED BY THE HUB", slices.Concat(stated(t), tpmRows(tpms, tpmProof.stated))},
		{"PENDING", column("", t.Pending())},
		{"NOT PROVEN", tpmRows(tpms, tpmProof.unproven)},
		{"NOT COVERED", column("", t.Limits)},
	} {
		if len(part.rows) == 0 {
			continue
		}
		if err := printTable(a.stdout, nil, append([][]string{{part.head}}, part.rows...)); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout)
	}
	c.good(a, t.Ledger.Verifier)
	if c.Redact != "" {
		fmt.Fprintf(a.stdout, "Without whose data it is about: %s.\n", quoted(c.Redact))
	}
	return nil
}

// column are rows of one word and one of many.
func column(first string, all []string) (rows [][]string) {
	for _, x := range all {
		rows = append(rows, []string{"  " + first, x})
	}
	return rows
}

// proven is what follows from signatures and hashes alone.
func (c *verifyCmd) proven(t erasure.Certificate) [][]string {
	size := "?"
	if cp, err := checkpoint.Unverified([]byte(t.Ledger.Checkpoint)); err == nil {
		size = fmt.Sprint(cp.Size)
	}
	rows := [][]string{
		{"  signed", "by " + t.Hub + ", not a byte altered"},
		{"  recorded", fmt.Sprintf("entry %d of its ledger of %s leaves names the same keys and scope", t.Ledger.Index, size)},
	}
	if len(c.Witness) > 0 {
		rows = append(rows, []string{"  witnessed", "the ledger was cosigned by " + strings.Join(witnessNames(t.Ledger.Checkpoint, c.Witness), ", ")})
	}
	o := t.Opened
	if o == nil {
		return append(rows, []string{"  scope", "not shown: this copy only commits to it"})
	}
	span := "all time"
	if o.Scope.From != nil && o.Scope.To != nil {
		span = o.Scope.From.Format(time.RFC3339Nano) + " to " + o.Scope.To.Format(time.RFC3339Nano)
	}
	if o.Scope.Month != "" {
		span = "what arrived in " + cell(o.Scope.Month)
	}
	return append(rows, [][]string{
		{"  erasure", o.Erasure.String()},
		{"  party", o.Party.String()},
		{"  assignments", fmt.Sprint(len(o.Scope.Assignments))},
		{"  streams", orWord(len(o.Scope.Streams), "all")},
		{"  span", span},
	}...)
}

// witnessNames are those of the keys whose cosignatures are there.
func witnessNames(signed string, keys []string) (names []string) {
	for _, text := range keys {
		if w, err := checkpoint.ParseWitness(text); err == nil && len(checkpoint.Cosigned([]byte(signed), w)) > 0 {
			names = append(names, cell(w.Name()))
		}
	}
	slices.Sort(names)
	return names
}

// stated is what the hub says, under its signature.
func stated(t erasure.Certificate) [][]string {
	d := t.Destroyed
	rows := [][]string{
		{"  asked", when(t.Asked) + " by " + t.AskedBy},
		{"  refused", when(t.Refused)},
		{"  keys destroyed", fmt.Sprintf("%s, root key %d (%s), %d in force since", when(d.At), d.From, d.Grade, d.To)},
	}
	for _, h := range d.Holders {
		row := fmt.Sprintf("%s: %s (%s)", cell(h.Holder), h.State, h.Grade)
		if h.Kind != "" {
			row += ", " + cell(h.Kind)
		}
		if h.Vouched != "" {
			row += ", vouched for by " + cell(h.Vouched)
		}
		if len(h.Evidence) > 0 && h.Kind != "tpm" {
			row += fmt.Sprintf(", evidence of %d bytes", len(h.Evidence))
		}
		rows = append(rows, []string{"  holder", row})
	}
	for _, name := range d.Late {
		rows = append(rows, []string{"  late copy", cell(name)})
	}
	rows = append(rows, []string{"  ciphertext gone", when(t.Purged)})
	if t.Version == 1 {
		return rows
	}
	if t.BackupsExpire.IsZero() {
		rows = append(rows, []string{"  backups", "the hub knows of none"})
	} else {
		rows = append(rows, []string{"  backups", "the last that may hold ciphertext ends " + when(t.BackupsExpire)})
	}
	rows = append(rows, []string{"  recovery shares", escrowWords(t.Escrow)})
	for _, who := range t.Escrow.Vouched {
		rows = append(rows, []string{"  vouched for", "the share of " + cell(who)})
	}
	if t.Told != nil {
		rows = append(rows, []string{"  recipients", fmt.Sprintf("%d, of whom %d were told", t.Told.Recipients, t.Told.Told)})
	}
	for _, why := range t.Kept {
		rows = append(rows, []string{"  kept", string(why)})
	}
	if t.Issue > 1 {
		rows = append(rows, []string{"  issue", fmt.Sprintf("%d, in place of the one of which SHA-256 is %s", t.Issue, cell(t.Supersedes))})
	}
	return rows
}

func escrowWords(e erasure.Escrow) string {
	switch e.State {
	case erasure.EscrowPending:
		return "pending escrow: old shares may still open the root key that was destroyed, with an old copy of the keyring"
	case erasure.EscrowDestroyed:
		return "so many of those from before are destroyed, as their holders say, that the rest open nothing"
	}
	return e.State
}

func orWord(n int, none string) string {
	if n == 0 {
		return none
	}
	return fmt.Sprint(n)
}

// writeNew writes a file that is not there yet.
func writeNew(path string, b []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fileError("file", err)
	}
	if _, err := file.Write(b); err != nil {
		file.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return file.Close()
}
