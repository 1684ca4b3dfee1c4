package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/intake"
)

type intakeCmd struct {
	MQTT intakeMQTTCmd `cmd:"" name:"mqtt" help:"From an MQTT broker that is there already."`
	Map  intakeMapCmd  `cmd:"" help:"Print a map that comes with the program, or check one of your own."`
}

func (*intakeCmd) Help() string {
	return `Brings in what you have: readings of devices that know nothing of Holdfast.

Example:
  holdfast intake mqtt --from mqtts://broker.example --map tasmota --dry-run
  holdfast intake map --print tasmota > map.json`
}

type intakeMapCmd struct {
	Print string `help:"Print this map: tasmota, zigbee2mqtt, sparkplug, homie, homeassistant, plain." placeholder:"NAME" xor:"what" required:"" env:"-"`
	Check string `help:"Check the map in this file, and list what it subscribes to." placeholder:"FILE" type:"path" xor:"what" required:"" env:"-"`
}

func (*intakeMapCmd) Help() string {
	return `A map says what topics and payloads mean: which device, which stream, which unit. Its grammar is docs/intake.md.

Example:
  holdfast intake map --print zigbee2mqtt > map.json
  holdfast intake map --check map.json`
}

func (c *intakeMapCmd) Run(a *app) error {
	if c.Print != "" {
		text, err := intake.Preset(c.Print)
		if err == nil {
			_, err = a.stdout.Write(text)
		}
		return err
	}
	m, err := readMap(c.Check)
	if err != nil {
		return err
	}
	filters, err := m.Filters()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s has %s. It subscribes to:\n", c.Check, many(len(m.Rules), "rule"))
	for _, f := range filters {
		fmt.Fprintf(a.stdout, "  %s\n", cell(f))
	}
	return nil
}

// readMap reads a map from a file, or one that comes with the program.
func readMap(name string) (*intake.Map, error) {
	text, err := os.ReadFile(name)
	if base := filepath.Base(name); errors.Is(err, fs.ErrNotExist) && slices.Contains(intake.Presets(), base) {
		text, err = intake.Preset(base)
	}
	if err != nil {
		return nil, fileError("map", err)
	}
	m, err := intake.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

type intakeMQTTCmd struct {
	From     string   `required:"" help:"The broker: mqtts://HOST[:PORT], or mqtt:// without TLS." placeholder:"URL" env:"-"`
	Map      []string `required:"" help:"What topics mean: a file, or tasmota, zigbee2mqtt, sparkplug, homie, homeassistant, plain. May be given several times." placeholder:"FILE" type:"path" env:"-"`
	Identity string   `help:"The gateway whose children the devices are: a folder with key.pem, cert.pem and ca.pem." placeholder:"DIR" type:"path"`
	Hub      string   `help:"Where the hub takes readings, mqtts://HOST:8883; what the identity says if left out." placeholder:"URL"`
	State    string   `help:"Folder for what must survive a restart; intake in the identity's if left out." placeholder:"DIR" type:"path" env:"-"`

	User         string        `help:"User at the broker." placeholder:"NAME" env:"HOLDFAST_BROKER_USER"`
	PasswordFile string        `help:"File with the password at the broker; or the environment's HOLDFAST_BROKER_PASSWORD." placeholder:"FILE" type:"path" env:"-"`
	CA           string        `name:"ca" help:"Whom to trust for the broker: a PEM file; the system's authorities if left out." placeholder:"FILE" type:"path" env:"-"`
	Cert         string        `help:"Client certificate for the broker, PEM." placeholder:"FILE" type:"path" env:"-"`
	Key          string        `help:"Its key, PEM." placeholder:"FILE" type:"path" env:"-"`
	ClientID     string        `name:"client-id" help:"Client id at the broker, which keeps the session; holdfast-intake-DEVICE if left out." placeholder:"ID" env:"-"`
	Version      string        `name:"mqtt-version" help:"5 or 3.1.1; 5 if the broker knows it." enum:",5,3.1.1" default:"" placeholder:"VERSION" env:"-"`
	Session      time.Duration `help:"How long the broker keeps messages while the intake is away (MQTT 5)." default:"168h" env:"-"`
	Window       int           `help:"Messages under way at once." default:"128" env:"-"`

	Unmapped string `enum:"drop,hold" default:"drop" help:"What becomes of messages that can't be stored: drop acknowledges and counts them, hold leaves them at the broker and ends when they are half a window." env:"-"`
	Rebirth  bool   `help:"Ask Sparkplug's nodes for a birth when their aliases are not known: publishes to the broker." env:"-"`

	Declare bool   `help:"Declare unknown devices as children of the gateway; needs --token or --data." env:"-"`
	Owner   string `help:"Whose they are: a name or an id; the operating organisation if left out." placeholder:"PARTY" env:"-"`
	API     string `name:"api" help:"The hub's address for that, https://HOST:8443; what the credential says if left out." placeholder:"URL" env:"-"`
	Token   string `help:"Declare with the token in this file." placeholder:"FILE" type:"path" env:"-"`
	Data    string `help:"Declare as the administrator of this data folder's running hub." placeholder:"DIR" type:"path" env:"-"`

	DryRun bool          `help:"Look for a while and say what would be stored; nothing is sent, the broker keeps no session." env:"-"`
	For    time.Duration `help:"End after this time; a dry run's default is 30s." env:"-"`
	Every  time.Duration `help:"How often a line of progress is printed; 0: never." default:"1m" env:"-"`
	outputFlags
}

func (*intakeMQTTCmd) Help() string {
	return `Subscribes to a broker at QoS 1 with a session that it keeps, makes readings of the messages by a map, and sends them to the hub as a gateway, each
device as its declared child. A message is acknowledged to the broker when its readings are durable on the hub, and not before: the intake, the hub
and the broker may be killed, and what comes again is stored once. It runs until it is told to end (SIGTERM), and then prints what it did.

Example:
  holdfast intake mqtt --from mqtts://broker.example --map tasmota --dry-run --for 2m
  holdfast device add house --data DATA
  holdfast enrol hf1:... --out house
  holdfast intake mqtt --from mqtts://broker.example --ca broker.pem --user hub --password-file secret --map tasmota --identity house`
}

func (c *intakeMQTTCmd) Run(a *app) error {
	m, err := c.maps()
	if err != nil {
		return err
	}
	broker, err := c.broker(a)
	if err != nil {
		return err
	}
	ctx := a.ctx
	if c.DryRun && c.For == 0 {
		c.For = 30 * time.Second
	}
	if c.DryRun {
		return c.look(a, broker, m)
	}
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	o := intake.Options{Broker: *broker, Map: m, State: c.State, Hold: c.Unmapped == "hold", Rebirth: c.Rebirth, Every: c.Every,
		Logger: slog.New(slog.NewTextHandler(a.stderr, nil)), Progress: func(r *intake.Report) { fmt.Fprintln(a.stderr, "holdfast:", intakeProgress(r)) }}
	i, err := c.gateway()
	if err != nil {
		return err
	}
	if o.State == "" {
		o.State = filepath.Join(c.Identity, "intake")
	}
	if o.Broker.ClientID == "" {
		o.Broker.ClientID = "holdfast-intake-" + i.Device.String()
	}
	g := &gateway{dir: c.Identity}
	if o.Gateway = g; c.Hub != "" {
		if g.address, err = hubMQTT(c.Hub); err != nil {
			return usageError{err}
		}
	}
	if o.Key, err = g.key(); err != nil {
		return err
	}
	if c.Declare {
		hub, err := c.connect(a)
		if err != nil {
			return err
		}
		defer hub.Close()
		o.Declare = c.declare(a, hub, i.Device)
	}
	fmt.Fprintf(a.stderr, "holdfast: takes in what %s sends.\n", broker.URL.Redacted())
	r, err := intake.Run(ctx, o)
	if shown := c.show(a, r, i.Device.String(), false); err == nil {
		err = shown
	}
	return err
}

func (c *intakeMQTTCmd) maps() (*intake.Map, error) {
	var all []*intake.Map
	for _, name := range c.Map {
		m, err := readMap(name)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return intake.Join(all...)
}

func (c *intakeMQTTCmd) gateway() (client.Identity, error) {
	if c.Identity == "" {
		return client.Identity{}, usagef("say as which gateway: --identity DIR (holdfast device add, holdfast enrol), or --dry-run")
	}
	i, err := client.LoadIdentity(c.Identity)
	if err == nil && i.Device.IsZero() {
		err = holdfast.Errorf(holdfast.Invalid, "the identity in %s is not a device's", c.Identity)
	}
	return i, err
}

// broker is how to come to the broker.
func (c *intakeMQTTCmd) broker(a *app) (*intake.Broker, error) {
	u, err := intake.ParseBroker(c.From)
	if err != nil {
		return nil, usageError{err}
	}
	if c.Window < 1 || c.Window > 10_000 || c.Session < 0 || c.Session > 10*365*24*time.Hour {
		return nil, usagef("--window is 1 to 10000, --session up to ten years")
	}
	b := &intake.Broker{URL: u, User: c.User, ClientID: c.ClientID, Version: c.Version, Window: c.Window, Expiry: c.Session, Password: os.Getenv("HOLDFAST_BROKER_PASSWORD")}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fileError("password", err)
		}
		b.Password = strings.TrimRight(string(text), "\r\n")
	}
	if u.Scheme == "mqtt" {
		if c.CA != "" || c.Cert != "" {
			return nil, usagef("mqtt:// has no TLS: use mqtts:// with --ca and --cert")
		}
		fmt.Fprintln(a.stderr, "holdfast: WARNING: mqtt:// is not encrypted: whoever is on the way reads and alters what the devices say, the password too")
		return b, nil
	}
	b.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fileError("certificate", err)
		}
		b.TLS.RootCAs = x509.NewCertPool()
		if !b.TLS.RootCAs.AppendCertsFromPEM(text) {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s holds no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "--cert and --key are not a certificate and its key in PEM files")
		}
		b.TLS.Certificates = []tls.Certificate{pair}
	}
	return b, nil
}

// connect makes the client that declares devices.
func (c *intakeMQTTCmd) connect(a *app) (*client.Client, error) {
	if c.Token == "" && c.Data == "" {
		return nil, usagef("say who declares devices: --token FILE, or --data DIR for the administrator")
	}
	return (&hubFlags{Hub: c.API, Token: c.Token, Data: c.Data}).connect(a)
}

func (c *intakeMQTTCmd) declare(a *app, hub *client.Client, gateway holdfast.DeviceID) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		body := map[string]any{"label": name, "owner": c.Owner, "gateway": gateway.String()}
		var d api.AddedDevice
		err := hub.Do(ctx, http.MethodPost, "/v1/devices", body, &d)
		if err == nil && d.TakesFrom != nil {
			fmt.Fprintf(a.stderr, "holdfast: child %s was erased before: it takes readings from %s on.\n", cell(name), d.TakesFrom.Format(time.RFC3339))
		}
		return err
	}
}

func (c *intakeMQTTCmd) look(a *app, broker *intake.Broker, m *intake.Map) error {
	gateway := "GATEWAY"
	if c.Identity != "" {
		i, err := c.gateway()
		if err != nil {
			return err
		}
		gateway = i.Device.String()
	}
	r, err := intake.Look(a.ctx, *broker, m, c.For, func() { fmt.Fprintf(a.stderr, "holdfast: looks for %s at what comes.\n", c.For) })
	if err != nil {
		return err
	}
	for _, d := range r.Devices {
		d.Unknown = d.Device != ""
	}
	if c.Token != "" || c.Data != "" {
		hub, err := c.connect(a)
		if err != nil {
			return err
		}
		defer hub.Close()
		known, err := all[api.Device](a, hub, "/v1/devices")
		if err != nil {
			return err
		}
		for _, d := range known {
			if line := r.Devices[d.Child]; line != nil && d.Gateway == gateway {
				line.Unknown = false
			}
		}
	}
	return c.show(a, r, gateway, true)
}

func intakeProgress(r *intake.Report) string {
	return fmt.Sprintf("%s, %s durable, %d without a reading, %d refused", many(r.Messages, "message"), many(r.Readings, "reading"), r.Unmapped, r.Refused)
}
