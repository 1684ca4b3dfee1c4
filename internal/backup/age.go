package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
)

// Recipients are whom pieces are encrypted to: with one of their identities, and no
// other way, a backup is read.
type Recipients struct {
	to    []age.Recipient
	texts []string
}

// Texts returns them as they were given.
func (r Recipients) Texts() []string { return r.texts }

// ReadRecipients takes recipients of age (age1..., age1pq...) and files with one on
// each line, as age -R reads them.
func ReadRecipients(texts, files []string) (r Recipients, err error) {
	add := func(where, text string) error {
		all, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return holdfast.Errorf(holdfast.Invalid, "%s is not a recipient of age (age1...): make an identity with age-keygen, and give the public key that it prints", where)
		}
		for _, one := range all {
			text, ok := one.(fmt.Stringer)
			if !ok {
				return holdfast.Errorf(holdfast.Invalid, "%s is of a kind that backups don't take", where)
			}
			r.to, r.texts = append(r.to, one), append(r.texts, text.String())
		}
		return nil
	}
	for i, text := range texts {
		if err := add(fmt.Sprintf("recipient %d", i+1), text); err != nil {
			return r, err
		}
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return r, failure("read recipients", err)
		}
		if err := add(path, string(b)); err != nil {
			return r, err
		}
	}
	if len(r.to) == 0 {
		return r, holdfast.Errorf(holdfast.Invalid, "say to whom the backup is encrypted: --recipient age1..., or --recipients-file FILE (age-keygen makes an identity; keep it away from the hub and from the backup)")
	}
	return r, nil
}

// ReadIdentities reads files with identities of age, as age -i reads them.
func ReadIdentities(files []string) (all []age.Identity, err error) {
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, failure("read identity", err)
		}
		some, err := age.ParseIdentities(f)
		f.Close()
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s is not a file of age identities (AGE-SECRET-KEY-...)", path)
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "give the age identity that opens the backup: --identity FILE")
	}
	return all, nil
}

// seal encrypts what is written to it.
func (r Recipients) seal(to io.Writer) (io.WriteCloser, error) {
	w, err := age.Encrypt(to, r.to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	return w, nil
}

// unseal opens a file.
func unseal(f io.Reader, what string, ids []age.Identity) (io.Reader, error) {
	r, err := age.Decrypt(f, ids...)
	if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
		return nil, holdfast.Errorf(holdfast.Denied, "this identity does not open %s: it is encrypted to others", what)
	}
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w", what, err)
	}
	return r, nil
}
