package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// certificate is a credential by certificate that is about to be made. What needs a
// disk is done before the hub is asked.
type certificate struct {
	csr  []byte // PEM
	dir  string // where key.pem lies, and cert.pem and ca.pem go; "": the key is elsewhere
	file *secretFile
}

// newCertificate reads a certificate request, or makes a key in a new folder.
func (c *tokenAddCmd) newCertificate() (_ *certificate, err error) {
	m := &certificate{}
	if c.CSR != "" {
		if m.csr, err = os.ReadFile(c.CSR); err != nil {
			return nil, usageError{fmt.Errorf("read the certificate request: %w", err)}
		}
		m.file, err = newSecretFile(c.Out)
		return m, err
	}
	if c.Out == "" {
		return nil, usagef("name the new folder for the key and the certificate: --out DIR")
	}
	if err := os.Mkdir(c.Out, 0o700); errors.Is(err, os.ErrExist) {
		return nil, usagef("%s is there already: name a new folder", c.Out)
	} else if err != nil {
		return nil, fmt.Errorf("make folder for the key: %w", err)
	}
	m.dir = c.Out
	if m.csr, err = m.makeKey(); err != nil {
		return nil, errors.Join(err, m.drop())
	}
	return m, nil
}

// makeKey makes key.pem and returns a certificate request for it.
func (m *certificate) makeKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	defer clear(pkcs8)
	if err := m.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func (m *certificate) write(name string, b []byte) error {
	f, err := newSecretFile(filepath.Join(m.dir, name))
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// drop takes back what was made before the hub refused.
func (m *certificate) drop() error {
	if m.dir != "" {
		return os.RemoveAll(m.dir)
	}
	return m.file.drop()
}

// handOut gives the certificate to who asked for it.
func (m *certificate) handOut(a *app, o outputFlags, hub *client.Client, n api.NewCredential) error {
	text := n.Certificate
	switch {
	case m.dir != "":
		ca, err := authorityOf(a, hub)
		if err != nil {
			return err
		}
		if err := errors.Join(m.write("cert.pem", []byte(text)), m.write("ca.pem", ca)); err != nil {
			return err
		}
		n.Certificate = ""
	case m.file != nil:
		_, err := io.WriteString(m.file, text)
		if err := errors.Join(err, m.file.Sync(), m.file.Close()); err != nil {
			return err
		}
		n.Certificate = ""
	}
	if o.json() {
		return printJSON(a.stdout, n)
	}
	switch {
	case m.dir != "":
		fmt.Fprintf(a.stdout, "Credential %s is in %s (key.pem, cert.pem, ca.pem), until %s.\n", n.ID, m.dir, whenever(n.Until))
	case m.file != nil:
		fmt.Fprintf(a.stdout, "The certificate of credential %s is in %s, until %s.\n", n.ID, m.file.Name(), whenever(n.Until))
	default:
		fmt.Fprint(a.stdout, text)
		fmt.Fprintf(a.stderr, "Credential %s, until %s.\n", n.ID, whenever(n.Until))
	}
	return nil
}

// authorityOf asks the hub for its authority's certificate, which devices and MQTT
// show whatever port 8443 shows.
func authorityOf(a *app, hub *client.Client) ([]byte, error) {
	r, _, err := hub.Stream(a.ctx, http.MethodGet, "/v1/ca.pem", nil, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 64<<10))
}
