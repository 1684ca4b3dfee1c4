package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/receipt"
)

type verifyCmd struct {
	Path      string   `arg:"" help:"The folder of an export, an erasure's certificate, a grant's receipt, a report, or of the ledger a proof, a slice or a checkpoint." type:"path"`
	Key       *string  `help:"The hub's public key, from holdfast ledger show; else the one that is in there, to compare by hand." placeholder:"KEY" env:"-"`
	Since     string   `help:"An older slice, proof or checkpoint that you kept: check that the ledger has only grown since." placeholder:"FILE" type:"path" env:"-"`
	Witness   []string `help:"The verifier key of a witness that must have cosigned; repeated." placeholder:"KEY" sep:"none" env:"-"`
	Witnesses int      `help:"How many of the witnesses are enough; all if left out." placeholder:"K" env:"-"`
	TPMRoots  string   `name:"tpm-roots" help:"Certificates of TPM makers, a file or folder, that must vouch for the TPM of a certificate's holder." placeholder:"PATH" type:"path" env:"-"`
	Redact    string   `help:"Write the certificate there without whose data it is about, to show it to others." placeholder:"FILE" type:"path" env:"-"`
	outputFlags
}

func (*verifyCmd) Help() string {
	return `Checks an export, a certificate, a receipt, a report, or what the ledger gave out: a proof of an entry or of growth, a slice, a checkpoint. No hub is asked. Exits 1 if anything
in it was changed, is missing, or is not by the hub of --key.

Example:
  holdfast verify ada
  holdfast verify 2026-12.slice --since 2026-11.slice --key 'holdfast/5kb52cvasbyszu3ettmrj3cziu+1a2b3c4d+AbC...'
  holdfast verify ada.cert --key 'holdfast/5kb52cvasbyszu3ettmrj3cziu+1a2b3c4d+AbC...' --redact for-others.cert
  holdfast verify ada.cert --key 'holdfast/5kb52cvasbyszu3ettmrj3cziu+1a2b3c4d+AbC...' --tpm-roots tpm-makers`
}

// maxCertificate bounds a file that is read whole.
const maxCertificate = 64 << 20

func (c *verifyCmd) Run(a *app) error {
	if c.Key != nil && *c.Key == "" {
		return usagef("--key is empty: holdfast ledger show prints the hub's key")
	}
	for _, key := range append([]string{c.key()}, c.Witness...) { // base64 reads over line ends, others don't
		if strings.ContainsAny(key, " \t\r\n") {
			return usagef("a key has a space or a line end in it or behind it: give it as holdfast ledger show prints it")
		}
	}
	if c.Witnesses < 0 || c.Witnesses > len(c.Witness) {
		return usagef("--witnesses is at most as many as there are --witness")
	}
	info, err := os.Stat(c.Path)
	if err != nil {
		return fileError("path", err)
	}
	if c.Redact+c.TPMRoots != "" && info.IsDir() {
		return usagef("--redact and --tpm-roots are for erasure certificates")
	}
	if info.IsDir() {
		if c.Since != "" || len(c.Witness) > 0 {
			return usagef("--since and --witness are for proofs, slices and checkpoints of the ledger")
		}
		return c.bundle(a)
	}
	file, err := os.Open(c.Path)
	if err != nil {
		return fileError("certificate", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCertificate))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if erasure.IsCertificate(text) {
		if c.Since != "" {
			return usagef("--since is for proofs, slices and checkpoints of the ledger")
		}
		return c.certificate(a, text)
	}
	if c.Redact+c.TPMRoots != "" {
		return usagef("--redact and --tpm-roots are for erasure certificates")
	}
	if receipt.IsReceipt(text) {
		return c.receipt(a, text)
	}
	if receipt.IsReport(text) {
		return c.report(a, text)
	}
	return c.ledger(a, text)
}

func (c *verifyCmd) Left() string {
	return "Nothing is known of " + quoted(c.Path) + ": run it again, it begins anew"
}

func (c *verifyCmd) bundle(a *app) error {
	r, err := archive.Verify(os.DirFS(c.Path), c.key())
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fileError("export", err)
		}
		return err
	}
	if c.json() {
		if err := printJSON(a.stdout, r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Faults {
			fmt.Fprintln(a.stdout, cell(f))
		}
		fmt.Fprintf(a.stdout, "%d files, %d bytes, %d streams, %d readings, %d entries of the ledger of %s.\n", r.Files, r.Bytes, r.Streams, r.Rows, r.Entries, cell(r.Owner))
	}
	if len(r.Faults) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "%s does not verify", c.Path)
	}
	c.good(a, r.Signer)
	return nil
}

// key is the hub's key that was given, or none.
func (c *verifyCmd) key() string {
	if c.Key == nil {
		return ""
	}
	return *c.Key
}

// good says whom the goodness depends on.
func (c *verifyCmd) good(a *app, signer string) {
	if c.json() {
		return
	}
	if c.Key != nil {
		fmt.Fprintln(a.stdout, "It is whole and by the hub of this key.")
		return
	}
	fmt.Fprintf(a.stdout, "It is whole, and signed by\n\n  %s\n\nThat this is your hub's key, compare with holdfast ledger show, or give it as --key.\n", cell(signer))
}
