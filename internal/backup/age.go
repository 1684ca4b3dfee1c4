package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

// RecipientList is a text with a recipient on each line, and where it comes from.
type RecipientList struct {
	Name string
	Text []byte
}

// ParseRecipients takes recipients of age (age1..., age1pq...) and lists of them, as
// age -R reads them.
func ParseRecipients(texts []string, lists []RecipientList) (r Recipients, err error) {
	add := func(where string, text io.Reader) error {
		all, err := age.ParseRecipients(text)
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
		if err := add(fmt.Sprintf("recipient %d", i+1), strings.NewReader(text)); err != nil {
			return r, err
		}
	}
	for _, l := range lists {
		if err := add(l.Name, bytes.NewReader(l.Text)); err != nil {
			return r, err
		}
	}
	if len(r.to) == 0 {
		return r, holdfast.Errorf(holdfast.Invalid, "say to whom the backup is encrypted: --recipient age1..., or --recipients-file FILE (age-keygen makes an identity; keep it away from the hub and from the backup)")
	}
	return r, nil
}

// ParseIdentities reads the identities of age in a file, as age -i reads them.
func ParseIdentities(name string, file []byte) ([]age.Identity, error) {
	all, err := age.ParseIdentities(bytes.NewReader(file))
	switch {
	case err == nil:
		return all, nil
	case len(bytes.TrimSpace(file)) == 0:
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is empty: it is to have an age identity (AGE-SECRET-KEY-...)", name)
	case bytes.HasPrefix(file, []byte("age-encryption.org/")), bytes.HasPrefix(file, []byte("-----BEGIN AGE ENCRYPTED FILE")):
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is encrypted itself: have age open it on the way, as with <(age -d FILE)", name)
	}
	return nil, holdfast.Errorf(holdfast.Invalid, "%s is not a file of age identities (AGE-SECRET-KEY-...)", name)
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
