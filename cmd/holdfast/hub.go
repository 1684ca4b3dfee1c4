package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// hubFlags say which hub a verb talks to, and as whom.
type hubFlags struct {
	Hub      string `help:"The hub's address, https://HOST:8443." placeholder:"URL"`
	Identity string `help:"Ask as the identity in this folder (key.pem, cert.pem, ca.pem)." placeholder:"DIR" type:"path"`
	Token    string `help:"Ask with the token in this file." placeholder:"FILE" type:"path"`
	Data     string `help:"Ask as the administrator of this data folder's hub." placeholder:"DIR" type:"path"`
	Code     string `help:"A code of your second factor, or a recovery code, for what a new credential may not do without one." placeholder:"CODE" env:"-"`
	CA       string `name:"ca" help:"Trust the authorities in this PEM file, or the system's." placeholder:"FILE|system"`
	For      string `help:"Ask in the place of this household or child, for which you act." placeholder:"PARTY" env:"-"`
}

// connect makes the client that the flags ask for. It asks nobody yet.
func (h *hubFlags) connect(a *app) (*client.Client, error) { return h.client(a.ctx, true) }

// connectAnyone is connect for what may be asked without a credential, too: who was
// erased has none left.
func (h *hubFlags) connectAnyone(a *app) (*client.Client, error) { return h.client(a.ctx, false) }

func (h *hubFlags) client(ctx context.Context, known bool) (*client.Client, error) {
	o := client.Options{Hub: h.Hub, Identity: h.Identity, Code: h.Code, For: h.For}
	if h.Identity != "" && h.Token != "" {
		return nil, usagef("give --identity or --token, not both")
	}
	if h.Token != "" {
		text, err := readFile(ctx, "token", h.Token)
		if err != nil {
			return nil, err
		}
		o.Token = strings.TrimSpace(string(text))
	}
	if h.Data != "" {
		if err := h.fromData(&o); err != nil {
			return nil, err
		}
	}
	if known && o.Identity == "" && o.Token == "" {
		return nil, usagef("say who asks: --identity DIR, --token FILE, or --data DIR for the administrator")
	}
	if o.Hub == "" && o.Identity != "" {
		i, err := client.LoadIdentity(o.Identity)
		if err != nil {
			return nil, err
		}
		o.Hub = i.Hub.API
	}
	if o.Hub == "" {
		return nil, usagef("say which hub: --hub https://HOST:8443, or --data DIR for the one of this machine")
	}
	if err := trustFlag(ctx, &o, h.CA); err != nil {
		return nil, err
	}
	return client.New(o)
}

// again are the flags as they were given, for a command that is to be typed after this
// one. A code holds once, and is not among them.
func (h *hubFlags) again() string {
	return typed([][2]string{{"--hub", h.Hub}, {"--identity", h.Identity}, {"--token", h.Token}, {"--data", h.Data}, {"--ca", h.CA}, {"--for", h.For}})
}

// another are the flags by which somebody else asks the same hub: which it is, as it was
// given or as its data folder has it, and in the place of who asks now his own credential.
func (h *hubFlags) another() string {
	where, own := h.Hub, [2]string{"--token", "HIS.token"}
	if h.Identity != "" || h.Token == "" {
		own = [2]string{"--identity", "HIS-FOLDER"}
	}
	flags := [][2]string{{"--hub", where}, {"--data", h.Data}, {"--ca", h.CA}, own}
	return typed(flags)
}

func typed(flags [][2]string) string {
	var b strings.Builder
	for _, f := range flags {
		if f[1] != "" {
			b.WriteString(" " + f[0] + " " + quoted(f[1]))
		}
	}
	return b.String()
}

// trustFlag reads what --ca says.
func trustFlag(ctx context.Context, o *client.Options, ca string) error {
	switch ca {
	case "":
	case "system":
		o.SystemRoots = true
	default:
		text, err := readFile(ctx, "certificate", ca)
		if err != nil {
			return err
		}
		o.CA = text
	}
	return nil
}

// running is DATA/run.json: where the hub of a data folder listens.
type running struct {
	API    string `json:"api"`
	Device string `json:"device"`
	MQTT   string `json:"mqtt"`
}

// fromData fills in what a data folder knows: where its hub listens, and its
// administrator's identity.
func (h *hubFlags) fromData(o *client.Options) error {
	if o.Identity == "" && o.Token == "" {
		o.Identity = filepath.Join(h.Data, "admin")
	}
	if o.Hub != "" {
		return nil
	}
	r, err := readRunning(h.Data)
	if err != nil {
		return err
	}
	o.Hub = reachable(r.API)
	o.AnyName = true // the address is the hub's own word; its certificate may be for other names only
	return nil
}

func readRunning(data string) (running, error) {
	var r running
	text, err := os.ReadFile(filepath.Join(data, "run.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
			return r, holdfast.Errorf(holdfast.NotFound, "there is no data folder %s: make one with holdfast init %s", data, data)
		}
		return r, holdfast.Errorf(holdfast.Unavailable, "the hub of %s is not running: start it with holdfast serve --data %s", data, data)
	}
	if err != nil {
		return r, fileError("data folder", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, holdfast.Errorf(holdfast.Invalid, "%s is not what serve writes", filepath.Join(data, "run.json"))
	}
	return r, nil
}

// reachable turns an address that listens everywhere into one to talk to.
func reachable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}

// fileError says which file of the command line can't be read.
func fileError(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.NotFound, "read %s: %w", what, err)
	case errors.Is(err, fs.ErrPermission):
		return holdfast.Errorf(holdfast.Denied, "read %s: %w", what, err)
	}
	return holdfast.Errorf(holdfast.Internal, "read %s: %w", what, err)
}
