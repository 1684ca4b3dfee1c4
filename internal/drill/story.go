package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func cut(word string) (kind, random string, ok bool) { return strings.Cut(word, "-") }

// prepare makes the hub with two owners, and a backup of it.
func (d *drill) prepare(ctx context.Context) error {
	if _, err := d.holdfast(ctx, "init", d.data(), "--organisation", "Drill", "--host", "localhost", "--host", "127.0.0.1", "--root-key", d.rootKeys()[0]); err != nil {
		return err
	}
	if _, err := d.holdfast(ctx, "holder", "add", "file:"+d.rootKeys()[1], "--name", "second", "--data", d.data()); err != nil {
		return err
	}
	if _, err := d.holdfast(ctx, "keyring", "add-copy", "file:"+d.copied(), "--name", "copy", "--data", d.data()); err != nil {
		return err
	}
	var err error
	if d.hub, err = d.serve(ctx, d.data()); err != nil {
		return err
	}
	if err := d.common(ctx); err != nil {
		return err
	}
	half := d.opts.Readings / 2
	for _, o := range []*owner{d.canary, d.control} {
		if err := d.join(ctx, o); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		if err := d.send(ctx, o, half); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := d.belong(ctx, o); err != nil {
			return err
		}
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	d.recipient = id.Recipient().String()
	if err := os.WriteFile(d.ageKey(), []byte(id.String()+"\n"), 0o600); err != nil {
		return err
	}
	if err := d.backup(ctx); err != nil { // it begins with a roll
		return err
	}
	for _, o := range []*owner{d.canary, d.control} {
		if err := d.send(ctx, o, d.opts.Readings-half); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		d.report.Readings += o.sent
		if err := d.assigned(ctx, o); err != nil {
			return err
		}
	}
	err = errors.Join(d.filled(ctx, d.canary), d.filled(ctx, d.control))
	d.check("filled", "two owners have something in every place", fmt.Sprintf("%d places of each, readings that are rolled and that are not", len(d.canary.words)), err)
	err = errors.Join(d.export(ctx, d.canary), d.export(ctx, d.control))
	d.check("export", "each took an export along, which is his and is not erased", "", err)
	return nil
}

func (d *drill) ageKey() string { return filepath.Join(d.aside(), "backup.key") }

func (d *drill) backup(ctx context.Context) error {
	_, err := d.holdfast(ctx, "backup", d.backups(), "--recipient", d.recipient, "--data", d.data())
	d.check("backup", "a backup, encrypted to a recipient of age", "", err)
	return err
}

// copyAside does what a thief would, before the erasure.
func (d *drill) copyAside() error {
	if err := os.CopyFS(filepath.Join(d.aside(), "keyring"), os.DirFS(d.copied())); err != nil {
		return err
	}
	return copyFile(d.rootKeys()[0], filepath.Join(d.aside(), "root.key"))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// assigned asks which assignments are an owner's: their keys die with his.
func (d *drill) assigned(ctx context.Context, o *owner) error {
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, device := range []string{o.device, o.spare, o.lent} {
		var page struct{ Items []struct{ ID string } }
		if err := c.Do(ctx, http.MethodGet, "/v1/assignments?device="+device, nil, &page); err != nil {
			if device == o.lent && d.opts.Omit != nil {
				continue
			}
			return err
		}
		for _, a := range page.Items {
			id, err := holdfast.ParseID[holdfast.AssignmentID](a.ID)
			if err != nil {
				return err
			}
			o.assignments = append(o.assignments, id)
		}
	}
	if len(o.assignments) < 3 && d.opts.Omit == nil {
		return holdfast.Errorf(holdfast.Internal, "the %s has %d assignments, not 3", o.kind, len(o.assignments))
	}
	return nil
}

// owners returns who has keys that die with the party: it and its assignments.
func (o *owner) owners() (map[vault.Owner]bool, error) {
	p, err := holdfast.ParseID[holdfast.PartyID](o.party)
	if err != nil {
		return nil, err
	}
	all := map[vault.Owner]bool{vault.OfParty(p): true}
	for _, id := range o.assignments {
		all[vault.OfAssignment(id)] = true
	}
	return all, nil
}

// use has the hub do once more all that brings keys and readings into its memory.
func (d *drill) use(ctx context.Context) error {
	for _, o := range []*owner{d.canary, d.control} {
		if err := d.send(ctx, o, 10); err != nil {
			return err
		}
		for _, token := range []string{o.token, d.studyToken} {
			if n, _, err := d.readings(ctx, d.hub, token, o); err != nil || n == 0 {
				return holdfast.Errorf(holdfast.Internal, "%d readings after a restart: %w", n, err)
			}
		}
	}
	return nil
}

// erase has the canary erase himself, and checks the certificate.
func (d *drill) erase(ctx context.Context) error {
	c, err := d.hub.as(d.canary.token)
	if err != nil {
		return err
	}
	defer c.Close()
	e, err := finished(ctx, c, map[string]any{"party": d.canary.party})
	if err != nil {
		return err
	}
	d.report.Certificate, d.report.Verifier = e.Certificate, e.Verifier
	d.certificate = filepath.Join(d.aside(), "erased.cert")
	if err := os.WriteFile(d.certificate, []byte(e.Certificate), 0o600); err != nil {
		return err
	}
	cert, err := erasure.VerifyCertificate([]byte(e.Certificate), e.Verifier)
	if err == nil {
		d.report.Grade = string(cert.Destroyed.Grade)
		_, err = d.holdfast(ctx, "verify", d.certificate, "--key", e.Verifier)
	}
	var holders []string
	for _, h := range cert.Destroyed.Holders {
		if holders = append(holders, h.Holder); h.State != vault.HolderDestroyed {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "holder %s has not destroyed: %s", h.Holder, h.State))
		}
	}
	if len(holders) != len(d.rootKeys()) {
		err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "it names %d holders of %d", len(holders), len(d.rootKeys())))
	}
	d.check("certificate", "the certificate verifies without a hub", fmt.Sprintf("root key %d is destroyed by %s, grade %s", cert.Destroyed.From, strings.Join(holders, " and "), cert.Destroyed.Grade), err)
	d.node(ctx)
	return nil
}

// erased is an erasure that has ended.
type erased struct{ ID, State, Certificate, Verifier string }

// finished asks for an erasure and waits for its end.
func finished(ctx context.Context, c *client.Client, what any) (e erased, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/erasures?wait=20", what, &e)
	for err == nil && e.State != "done" {
		err = c.Do(ctx, http.MethodGet, "/v1/erasures/"+e.ID+"?wait=20", nil, &e)
	}
	return e, err
}

// node checks the certificate with the verifier in JavaScript, where both are there.
func (d *drill) node(ctx context.Context) {
	const script = "examples/verify/certificate.mjs"
	s := Step{ID: "certificate-node", What: "the certificate verifies with a second program", Result: NotTried, Detail: "node or " + script + " is not here"}
	node, err := exec.LookPath("node")
	if _, missing := os.Stat(script); err == nil && missing == nil {
		s.Result, s.Detail = Pass, ""
		if out, err := exec.CommandContext(ctx, node, script, d.certificate, d.report.Verifier).CombinedOutput(); err != nil {
			s.Result, s.Detail = Fail, fmt.Sprintf("%v: %s", err, out)
		}
	}
	d.add(s)
}

// asked asks for what was erased, as everybody who could.
func (d *drill) asked(ctx context.Context, gone *wanted) {
	t := &Tally{Where: InAnswers}
	var errs []error
	for _, token := range []string{d.canary.token, d.studyToken} {
		n, _, err := d.readings(ctx, d.hub, token, d.canary)
		errs = append(errs, refused(n, err))
	}
	q := "/v1/readings?format=ndjson&device=" + d.canary.device
	if b, err := ask(ctx, d.hub.admin, q); err == nil {
		errs = append(errs, holdfast.Errorf(holdfast.Internal, "an administrator got %d bytes of readings", len(b)))
	}
	if c, err := d.hub.as(d.canary.token); err == nil {
		for _, path := range d.canary.paths() {
			if b, err := ask(ctx, c, path); err == nil {
				gone.look(b, path, t)
			}
		}
		c.Close()
	}
	for _, path := range []string{"/v1/parties", "/v1/devices", "/v1/grants", "/v1/alarms", "/v1/webhooks", "/v1/deliveries", "/v1/tokens", "/v1/erasures", "/v1/holds", "/v1/ledger/entries", "/v1/doctor", "/v1/devices/" + d.canary.device} {
		if b, err := ask(ctx, d.hub.admin, path); err == nil {
			t.Files++
			t.Bytes += uint64(len(b))
			gone.look(b, path, t)
		}
	}
	if n, text, err := d.readings(ctx, d.hub, d.control.token, d.control); err != nil || n != d.control.sent {
		errs = append(errs, holdfast.Errorf(holdfast.Internal, "the other owner gets %d of his %d readings: %w", n, d.control.sent, err))
	} else {
		gone.look([]byte(text), "readings of the other owner", t)
	}
	d.searched("asked", "asked on every path: the erased owner refused, the other served", t, errors.Join(errs...))
}

// restored restores with one of the holders and the copy of the keyring, and asks.
func (d *drill) restored(ctx context.Context, gone *wanted, root, id string) {
	dir := filepath.Join(d.scratch(), "restored"+id)
	key, keyring := dir+".key", dir+".keyring" // a restored hub changes its root key, and goes on with the copy
	err := errors.Join(copyFile(root, key), os.CopyFS(keyring, os.DirFS(d.copied())))
	if err == nil {
		_, err = d.holdfast(ctx, "restore", dir, "--from", d.backups(), "--identity", d.ageKey(), "--keyring", keyring, "--root-key", key)
	}
	if err == nil {
		err = d.triedOn(ctx, dir)
	}
	if e := d.putBack(keyring); e != nil {
		err = errors.Join(err, e)
	}
	name := filepath.Base(filepath.Dir(root))
	d.check("restored"+id, "the oldest backup restored with the keyring's copy of now and the root key in "+name+"/: the erased owner is refused, the other's readings are there", "", err)
	if err == nil {
		t := new(Tally)
		d.searched("restored-files"+id, "all files of the hub restored with the root key in "+name+"/: patterns", t, gone.tree(dir, t))
	}
}

// putBack undoes what a restored hub did to the copy of the keyring: there is one hub
// too many.
func (d *drill) putBack(keyring string) error {
	entries, err := os.ReadDir(d.copied())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(d.copied(), e.Name())); err != nil {
			return err
		}
	}
	return os.CopyFS(d.copied(), os.DirFS(keyring))
}

// restores tries to bring the erased owner back.
func (d *drill) restores(ctx context.Context, gone *wanted) {
	for i, root := range d.rootKeys() {
		d.restored(ctx, gone, root, []string{"", "-second"}[i])
	}
	drill := func(keyring, root string) (found struct{ Readings int64 }, lost int, err error) {
		out, err := d.holdfast(ctx, "restore", "drill", "--scratch", d.scratch(), "--from", d.backups(), "--identity", d.ageKey(), "--keyring", keyring, "--root-key", root, "-o", "json")
		var answer struct {
			Readings int64
			Lost     []json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &answer)
		}
		found.Readings = answer.Readings
		return found, len(answer.Lost), err
	}
	_, _, err := drill(filepath.Join(d.aside(), "keyring"), d.rootKeys()[0])
	said := ""
	switch {
	case err == nil:
		err = holdfast.Errorf(holdfast.Internal, "it opened")
	case strings.Contains(err.Error(), "root key"): // and not for another reason
		_, said, _ = strings.Cut(err.Error(), "holdfast: ")
		err = nil
	}
	d.check("old-keyring", "the oldest backup with a keyring copied before the erasure and the root key of now: does not open", said, err)
	s := Step{ID: "thief", What: "the oldest backup with a keyring and a root key that were both copied before the erasure", Result: Limit}
	found, lost, err := drill(filepath.Join(d.aside(), "keyring"), filepath.Join(d.aside(), "root.key"))
	if err != nil {
		s.Result, s.Detail = NotTried, "it was to open, to show what erasing does not reach: "+err.Error()
	} else {
		s.Detail = fmt.Sprintf("opens: %d readings, %d streams lost. Nobody can take back a copy of the root key that was made outside its holders: that is what holders that give no copies are for", found.Readings, lost)
	}
	d.add(s)
}

// triedOn serves a restored hub and asks it.
func (d *drill) triedOn(ctx context.Context, dir string) (err error) {
	h, err := d.serve(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	for _, token := range []string{d.canary.token, d.studyToken} {
		n, _, err := d.readings(ctx, h, token, d.canary)
		if err := refused(n, err); err != nil {
			return fmt.Errorf("the erased owner's readings: %w", err)
		}
	}
	if n, _, err := d.readings(ctx, h, d.control.token, d.control); err != nil || n < d.opts.Readings/2 {
		return holdfast.Errorf(holdfast.Internal, "the other owner has %d of %d readings of the backup: %w", n, d.opts.Readings/2, err)
	}
	return nil
}
