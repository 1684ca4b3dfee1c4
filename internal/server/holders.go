package server

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/execholder"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// The schemes of holders' URLs.
const (
	schemeFile = "file"
	schemeTPM  = "tpm"
	schemeExec = "exec"
)

func schemeOf(holder string) string {
	scheme, _, _ := strings.Cut(holder, ":")
	return scheme
}

// holderURL is a holder's URL taken apart.
type holderURL struct {
	scheme     string
	path       string   // of a file or program, absolute
	args       []string // of a program
	passphrase string   // file whose first line protects a root key file
	tpm        tpmholder.Options
}

// parseHolder reads file:/PATH?passphrase-file=/PATH, exec:/PATH ARG ARG and what
// tpmholder knows.
func parseHolder(text string) (u holderURL, err error) {
	scheme, rest, found := strings.Cut(text, ":")
	if u.scheme = scheme; !found || rest == "" {
		return u, holdfast.Errorf(holdfast.Invalid, "%q is no holder: give file:/PATH, tpm:/dev/tpmrm0?state=/PATH or exec:/PATH ARGUMENTS", text)
	}
	switch scheme {
	case schemeFile:
		path, query, _ := strings.Cut(rest, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return u, holdfast.Errorf(holdfast.Invalid, "what follows ? in %q can't be read: only passphrase-file=/PATH may", text)
		}
		for name := range q {
			if name != "passphrase-file" {
				return u, holdfast.Errorf(holdfast.Invalid, "a file has no %q: only passphrase-file=/PATH may follow the ?", name)
			}
		}
		u.path, u.passphrase = path, q.Get("passphrase-file")
		if u.passphrase != "" && !filepath.IsAbs(u.passphrase) {
			return u, holdfast.Errorf(holdfast.Invalid, "the passphrase file %q is not absolute", u.passphrase)
		}
	case schemeExec:
		words := strings.Fields(rest)
		for i, w := range words {
			if words[i], err = url.PathUnescape(w); err != nil {
				return u, holdfast.Errorf(holdfast.Invalid, "%q can't be read: a space within an argument is written %%20, a %% itself %%25", w)
			}
		}
		if len(words) == 0 {
			return u, holdfast.Errorf(holdfast.Invalid, "%q names no program", text)
		}
		u.path, u.args = words[0], words[1:]
	case schemeTPM:
		u.tpm, err = tpmholder.ParseURL(text)
		return u, err
	default:
		return u, holdfast.Errorf(holdfast.Invalid, "there are no holders of the kind %q: give file:/PATH, tpm:/dev/tpmrm0?state=/PATH or exec:/PATH ARGUMENTS", scheme)
	}
	if !filepath.IsAbs(u.path) {
		return u, holdfast.Errorf(holdfast.Invalid, "%q is not an absolute path: a service starts in another folder than you", u.path)
	}
	u.path = filepath.Clean(u.path)
	return u, nil
}

// held is a registered holder that is open.
type held struct {
	keyHolder
	holder vault.Holder
}

// file returns the holder as a root key file, if it is one.
func (h held) file() (*vault.FileHolder, bool) {
	f, ok := h.holder.(*vault.FileHolder)
	return f, ok
}

// identified are holders that can tell their keys from those of another at the same
// place.
type identified interface{ ID() string }

// openHolders opens whom keys.json names and nobody has fenced.
func (c Config) openHolders(ctx context.Context, f folder, k keys) (out []held, err error) {
	for _, e := range k.Holders {
		if !e.FencedAt.IsZero() {
			continue
		}
		h, err := c.openHolder(ctx, f, e)
		if err != nil {
			return nil, errors.Join(c.lost(k, e, err), closeHolders(out))
		}
		out = append(out, held{e, h})
	}
	if c.RootKey != "" && k.holder(rootKeyHolder) < 0 {
		return nil, holdfast.Errorf(holdfast.Conflict, "--root-key names %s, and no root key file is a holder any more: start without --root-key (holdfast holder list --data %s)", c.RootKey, c.Data)
	}
	if len(out) == 0 {
		return nil, holdfast.Errorf(holdfast.Unavailable, "every holder of the root key is fenced: bring one back with holdfast holder return NAME --data %s", c.Data)
	}
	return out, nil
}

// lost says what to do about a holder that can't be opened.
func (c Config) lost(k keys, e keyHolder, err error) error {
	kind := holdfast.KindOf(err)
	if kind == holdfast.NotFound && e.Name == rootKeyHolder { // the place of another can't be named
		err = holdfast.Errorf(kind, "%w If it was moved, name its place with --root-key", err)
	}
	if len(k.Holders) < 2 {
		return holdfast.Errorf(kind, "%w. Without it the data can't be opened%s", err, c.shares("; if it is lost"))
	}
	if kind == holdfast.Internal {
		kind = holdfast.Unavailable
	}
	return holdfast.Errorf(kind, "holder %s: %w. Nothing was changed. Bring it back, or go on without it: holdfast holder fence %[1]s --data %[3]s (certificates name it as pending until it returns)%[4]s", e.Name, err, c.Data, c.shares("; if every holder is lost"))
}

// shares names the way back by recovery shares, if there are any in force.
func (c Config) shares(lost string) string {
	if dealt, err := vault.Escrowed(c.withDefaults().Ground.Keyring(filepath.Join(c.Data, keyringDir))); err == nil && !dealt {
		return ""
	}
	return lost + ", with recovery shares: holdfast recovery open --help (docs/recovery.md)"
}

// openHolder opens one.
func (c Config) openHolder(ctx context.Context, f folder, e keyHolder) (vault.Holder, error) {
	u, err := parseHolder(e.URL)
	if err != nil {
		return nil, err
	}
	var h vault.Holder
	switch u.scheme {
	case schemeFile:
		h, err = c.openFile(e.Name, u)
	case schemeExec:
		h, err = execholder.Open(ctx, u.path, u.args, f.Hub)
	case schemeTPM:
		h, err = tpmholder.Open(ctx, u.tpm)
	}
	if err != nil {
		return nil, err
	}
	if inside(c.Data, u.tpm.State) && u.scheme == schemeTPM {
		return nil, errors.Join(holdfast.Errorf(holdfast.Denied, "the state file %s of the TPM lies in the data folder: name one outside", u.tpm.State), closeHolder(h))
	}
	if i, ok := h.(identified); ok && e.ID != "" && i.ID() != e.ID {
		return nil, errors.Join(holdfast.Errorf(holdfast.Denied, "what is at %s is another root key than the one that was registered: it may be another hub's", e.URL), closeHolder(h))
	}
	return h, nil
}

// closeHolder gives back what a holder keeps other processes from.
func closeHolder(h vault.Holder) error {
	if c, ok := h.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func closeHolders(all []held) error {
	var errs []error
	for _, h := range all {
		errs = append(errs, closeHolder(h.holder))
	}
	return errors.Join(errs...)
}

// openFile opens a root key file. The one that holdfast.json names has its place and
// passphrase from the Config, if that gives one.
func (c Config) openFile(name string, u holderURL) (vault.Holder, error) {
	pass := []byte(nil)
	if name == rootKeyHolder {
		if pass = c.Passphrase; c.RootKey != "" {
			u.path = c.RootKey
		}
	}
	if inside(c.Data, u.path) {
		return nil, holdfast.Errorf(holdfast.Denied, "the root key %s lies in the data folder: whoever copies the folder has both; move it out and say where with --root-key", u.path)
	}
	if u.passphrase != "" {
		var err error
		if pass, err = c.passphraseIn(u.passphrase); err != nil {
			return nil, err
		}
		defer clear(pass)
	}
	return vault.OpenFileHolderOn(c.Ground.RootKeys, u.path, pass)
}

// passphraseIn is the first line of a file.
func (c Config) passphraseIn(path string) ([]byte, error) {
	if inside(c.Data, path) {
		return nil, holdfast.Errorf(holdfast.Denied, "the passphrase file %s lies in the data folder: whoever copies the folder has it", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "read passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	clear(b)
	if line = strings.TrimRight(line, "\r"); line == "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "the passphrase file %s begins with an empty line", path)
	}
	return []byte(line), nil
}

// registered are the holders under their names, as the vault knows them.
func registered(all []held) (out []vault.Holder) {
	for _, h := range all {
		out = append(out, vault.Registered(h.holder, h.Name, h.Vouch))
	}
	return out
}
