package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The files of an identity's folder. The two with "next" exist while it renews.
const (
	keyFile      = "key.pem"
	certFile     = "cert.pem"
	caFile       = "ca.pem"
	hubFile      = "hub.json"
	nextKeyFile  = "key.next.pem"
	nextCertFile = "cert.next.pem"
)

// Identity is what stands in an identity's folder, but for the key.
type Identity struct {
	Dir       string
	Device    holdfast.DeviceID // zero if it is a person's or program's
	NotBefore time.Time
	NotAfter  time.Time
	Hub       Hub
}

// Hub is where an identity's hub is, as far as its folder says.
type Hub struct {
	API    string `json:"api,omitempty"`    // https://HOST:8443, people and programs
	Device string `json:"device,omitempty"` // https://HOST:8444
	MQTT   string `json:"mqtt,omitempty"`   // mqtts://HOST:8883
}

// Due reports whether two thirds of the certificate's life have passed: time to
// renew it.
func (i Identity) Due(now time.Time) bool {
	return now.After(i.NotAfter.Add(-i.NotAfter.Sub(i.NotBefore) / 3))
}

const deviceURN = "urn:holdfast:device:"

// LoadIdentity reads a folder.
func LoadIdentity(dir string) (Identity, error) {
	f, err := readFolder(dir)
	if err != nil {
		return Identity{}, err
	}
	return f.identity(), nil
}

// folder is the content of an identity's folder.
type folder struct {
	dir  string
	pair tls.Certificate
	ca   []byte
	hub  Hub
}

func (f *folder) identity() Identity {
	leaf := f.pair.Leaf
	i := Identity{Dir: f.dir, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Hub: f.hub}
	for _, u := range leaf.URIs {
		if id, ok := strings.CutPrefix(u.String(), deviceURN); ok {
			if d, err := holdfast.ParseID[holdfast.DeviceID](id); err == nil {
				i.Device = d
			}
		}
	}
	return i
}

func readFolder(dir string) (*folder, error) {
	f := &folder{dir: dir}
	key, err := readFile(dir, keyFile)
	if err != nil {
		return nil, err
	}
	cert, err := readFile(dir, certFile)
	if err != nil {
		return nil, err
	}
	if f.ca, err = readFile(dir, caFile); err != nil {
		return nil, err
	}
	if f.pair, err = tls.X509KeyPair(cert, key); err != nil {
		// A renewal may have been interrupted between its two renames: the key is the
		// new one and its certificate still waits.
		next, nextErr := readFile(dir, nextCertFile)
		if nextErr == nil {
			f.pair, nextErr = tls.X509KeyPair(next, key)
		}
		if nextErr != nil { // err could quote the key's file
			return nil, holdfast.Errorf(holdfast.Invalid, "in %s, %s and %s are not a key and its certificate", dir, keyFile, certFile)
		}
		if err := os.Rename(filepath.Join(dir, nextCertFile), filepath.Join(dir, certFile)); err != nil && !errors.Is(err, fs.ErrNotExist) &&
			!errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("end the renewal in %s: %w", dir, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, hubFile)); err == nil {
		if err := json.Unmarshal(text, &f.hub); err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s is not JSON", filepath.Join(dir, hubFile))
		}
	}
	return f, nil
}

func readFile(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.NotFound, "%s has no %s: an identity is a folder with %s, %s and %s", dir, name, keyFile, certFile, caFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return b, nil
}

// writeFile replaces a file whole: who reads sees the old or the new one, also
// after a power cut.
func writeFile(dir, name string, data []byte, mode fs.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
		}
	}()
	f, err := os.CreateTemp(dir, "."+name+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes renames durable, where the system has that.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// keepKey returns the key in a file, making it first if there is none.
func keepKey(dir, name string) (crypto.Signer, error) {
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, holdfast.Errorf(holdfast.Conflict, "%s holds no key in PEM: use another folder", path)
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		return nil, holdfast.Errorf(holdfast.Conflict, "%s holds no key that can be used: use another folder", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	defer clear(der)
	text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return key, writeFile(dir, name, text, 0o600)
}

func certText(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
