package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

type ledgerWitnessCmd struct {
	State  string   `required:"" help:"A folder for the witness's key and what it has seen; made if it is not there." placeholder:"DIR" type:"path" env:"-"`
	Name   string   `help:"When the key is made: its name, such as witness.example/ada." placeholder:"NAME" env:"-"`
	Log    []string `required:"" help:"The public key of a hub's ledger, from holdfast ledger show; repeated." placeholder:"KEY" sep:"none" env:"-"`
	Listen string   `help:"Where the hubs reach it." default:"127.0.0.1:8445" placeholder:"ADDRESS" env:"-"`
	Cert   string   `help:"Certificate file for TLS." placeholder:"FILE" type:"path" and:"tls" env:"-"`
	Key    string   `help:"Its key file." placeholder:"FILE" type:"path" and:"tls" env:"-"`
}

func (*ledgerWitnessCmd) Help() string {
	return `Runs a witness (C2SP tlog-witness) until it is interrupted: a second operator, or an owner, who remembers the last head of a hub's ledger and cosigns the
next only if that began with it. It prints its address and verifier key, which the hub is given with --witness. It needs no hub of its own. What it hears and says is
public and signed; with --cert and --key it listens with TLS, without on this machine only, for a proxy in front of it.

Example:
  holdfast ledger witness --state WITNESS --name witness.example/ada --log 'holdfast/abc...+1a2b3c4d+AbC...' --listen :8445 --cert cert.pem --key key.pem`
}

func (c *ledgerWitnessCmd) Run(a *app) error {
	if host, _, err := net.SplitHostPort(c.Listen); err != nil {
		return usagef("--listen is HOST:PORT")
	} else if ip := net.ParseIP(host); c.Cert == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("without --cert and --key a witness listens on this machine only: give them, or 127.0.0.1:PORT and a proxy")
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return fileError("state", err)
	}
	key, verifier, err := c.key()
	if err != nil {
		return err
	}
	s, err := witness.NewServer(key, c.Log, seen(c.State))
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "--log: %w", err)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "can't listen on %s: %w", c.Listen, err)
	}
	srv := &http.Server{Handler: s, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(a.ctx, func() { srv.Close() })
	defer stop()
	scheme := "http"
	if c.Cert != "" {
		scheme = "https"
	}
	fmt.Fprintf(a.stdout, "The witness is ready. A hub is given\n\n  --witness '%s://%s %s'\n", scheme, ln.Addr(), verifier)
	if c.Cert != "" {
		err = srv.ServeTLS(ln, c.Cert, c.Key)
	} else {
		err = srv.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// witnessKey is key.json in the state folder.
type witnessKey struct {
	Secret   string `json:"secret"`
	Verifier string `json:"verifier"`
}

// key reads the witness's key, or makes it.
func (c *ledgerWitnessCmd) key() (*checkpoint.Cosigner, string, error) {
	path := filepath.Join(c.State, "key.json")
	var k witnessKey
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if c.Name == "" {
			return nil, "", usagef("say with --name how the witness's key is to be called, such as witness.example/ada")
		}
		if k.Secret, k.Verifier, err = checkpoint.NewCosigner(c.Name); err != nil {
			return nil, "", err
		}
		if err := replaceFile(path, k); err != nil {
			return nil, "", fileError("key", err)
		}
	case err != nil:
		return nil, "", fileError("key", err)
	default:
		if err := json.Unmarshal(text, &k); err != nil {
			return nil, "", holdfast.Errorf(holdfast.Invalid, "%s is not a witness's key", path)
		}
	}
	key, err := checkpoint.ParseCosigner(k.Secret)
	if err != nil {
		return nil, "", holdfast.Errorf(holdfast.Invalid, "%s is not a witness's key", path)
	}
	return key, k.Verifier, nil
}

// replaceFile writes a small file whole or not at all, and durably.
func replaceFile(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// seen is a folder with a file for each log, of what was cosigned last.
type seen string

func (s seen) path(origin string) string {
	return filepath.Join(string(s), strings.NewReplacer("/", "_", "\\", "_", ":", "_").Replace(origin)+".log.json")
}

// lastSeen is such a file; the origin tells apart names that make the same file.
type lastSeen struct {
	Origin     string `json:"origin"`
	Checkpoint string `json:"checkpoint"`
}

func (s seen) Last(origin string) ([]byte, error) {
	text, err := os.ReadFile(s.path(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var last lastSeen
	if err := json.Unmarshal(text, &last); err != nil || last.Origin != origin {
		return nil, errors.New("what was seen last is not of this log")
	}
	return []byte(last.Checkpoint), nil
}

func (s seen) Remember(origin string, signed []byte) error {
	return replaceFile(s.path(origin), lastSeen{origin, string(signed)})
}
