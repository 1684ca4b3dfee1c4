package tpmholder

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Makers are the certificates of TPM makers that somebody trusts.
type Makers struct{ roots, between *x509.CertPool }

// ReadMakers reads every certificate (PEM or DER) of a file, or of the files of a
// folder. Those that are signed by themselves are roots, others stand between.
func ReadMakers(path string) (Makers, error) {
	m := Makers{x509.NewCertPool(), x509.NewCertPool()}
	files, err := filesAt(path)
	if err != nil {
		return m, fmt.Errorf("read certificates of TPM makers: %w", err)
	}
	var roots int
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return m, fmt.Errorf("read certificates of TPM makers: %w", err)
		}
		for _, der := range blocks(b) {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return m, holdfast.Errorf(holdfast.Invalid, "%s, among the certificates of TPM makers, is none", file)
			}
			if c.CheckSignatureFrom(c) == nil {
				m.roots.AddCert(c)
				roots++
			} else {
				m.between.AddCert(c)
			}
		}
	}
	if roots == 0 {
		return m, holdfast.Errorf(holdfast.Invalid, "there is no root certificate of a TPM maker in %s", path)
	}
	return m, nil
}

// filesAt is a file, or those of a folder.
func filesAt(path string) (files []string, err error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	return files, err
}

// blocks are the certificates in a file.
func blocks(b []byte) (out [][]byte) {
	for rest := b; ; {
		var p *pem.Block
		if p, rest = pem.Decode(rest); p == nil {
			break
		}
		if p.Type == "CERTIFICATE" {
			out = append(out, p.Bytes)
		}
	}
	if out == nil {
		out = [][]byte{b}
	}
	return out
}

// Origin is where a TPM comes from, as its endorsement certificate and the chain above
// it say.
type Origin struct {
	Root  string `json:"root"`            // who signed the chain's first certificate, in X.509's words
	Maker string `json:"maker,omitempty"` // the TPM's, as registered with the TCG; empty: it is not named
	Model string `json:"model,omitempty"`
}

func (o Origin) String() string {
	text := o.Root
	if o.Maker != "" {
		text += ", maker " + o.Maker
	}
	if o.Model != "" {
		text += ", model " + o.Model
	}
	return text
}

// Know reports whether a maker vouches for an EK certificate, at a time, and what it
// says of the TPM.
func (m Makers) Know(ekCertificate []byte, at time.Time) (Origin, error) {
	c, err := x509.ParseCertificate(ekCertificate)
	if err != nil {
		return Origin{}, holdfast.Errorf(holdfast.Invalid, "the EK certificate can't be read")
	}
	// The alternative name of an EK certificate has the maker and model of the TPM in a
	// form that package x509 leaves to its caller, and is critical.
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool {
		return id.Equal(alternativeName())
	})
	chains, err := c.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: m.between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return Origin{}, holdfast.Errorf(holdfast.Denied, "no listed maker vouches for the TPM: %w", err)
	}
	o := Origin{Root: chains[0][len(chains[0])-1].Subject.String()}
	for _, e := range c.Extensions {
		if e.Id.Equal(alternativeName()) {
			o.name(e.Value)
		}
	}
	return o, nil
}

func alternativeName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// name takes maker and model out of an alternative name: a directory name with
// attributes of the TCG (EK Credential Profile, 3.2.9). What it can't read it leaves.
func (o *Origin) name(der []byte) {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return
	}
	for _, n := range names {
		var parts pkix.RDNSequence
		if n.Class != asn1.ClassContextSpecific || n.Tag != 4 { // directoryName
			continue
		}
		if _, err := asn1.Unmarshal(n.Bytes, &parts); err != nil {
			continue
		}
		for _, set := range parts {
			for _, a := range set {
				text, _ := a.Value.(string)
				switch {
				case a.Type.Equal(asn1.ObjectIdentifier{2, 23, 133, 2, 1}):
					o.Maker = maker(text)
				case a.Type.Equal(asn1.ObjectIdentifier{2, 23, 133, 2, 2}):
					o.Model = text
				}
			}
		}
	}
}

// maker writes the four bytes of a TPM maker's id, "id:49424D00", as the letters that
// they are.
func maker(id string) string {
	digits, ok := strings.CutPrefix(id, "id:")
	b, err := hex.DecodeString(digits)
	b = bytes.TrimRight(b, "\x00 ")
	if !ok || err != nil || len(b) == 0 || bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return id
	}
	return string(b)
}
