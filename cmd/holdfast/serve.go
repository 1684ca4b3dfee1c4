package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

type serveCmd struct {
	Data         string `required:"" help:"The data folder that init made." placeholder:"DIR"`
	RootKey      string `help:"Where the root key is (default: where init put it)." placeholder:"PATH"`
	Passphrase   string `name:"passphrase-file" help:"A file whose first line is the root key's passphrase." placeholder:"FILE"`
	ListenAPI    string `help:"Address for people and programs." default:"127.0.0.1:8443"`
	ListenDevice string `help:"Address for devices over HTTPS." default:":8444"`
	ListenMQTT   string `name:"listen-mqtt" help:"Address for devices over MQTT." default:":8883"`
	APICert      string `name:"api-cert" help:"Certificate file for people and programs, from an authority that browsers know." placeholder:"FILE" and:"api"`
	APIKey       string `name:"api-key" help:"Its key file." placeholder:"FILE" and:"api"`
	Issuers      string `help:"A JSON file that names the issuers (OpenID Connect) whose tokens are believed, for owners or for staff; docs/config.md says how it looks." placeholder:"FILE"`
	DeviceTLSMin string `name:"device-tls-min" help:"Oldest TLS that devices may speak: 1.3, or 1.2 for parts in the field." default:"1.3" enum:"1.3,1.2"`
	QueryMemory  int64  `help:"MiB of memory that all queries together may take, one of them a quarter; from 32. By default a quarter of GOMEMLIMIT, at most 256." placeholder:"MIB"`
	ReadCache    int64  `help:"MiB of decoded readings to keep in memory for queries that are asked again; -1: none." default:"64" placeholder:"MIB"`

	Lookback time.Duration `name:"prometheus-lookback" help:"How long a reading is the present value of its stream in PromQL; from 1s." default:"1h" placeholder:"DURATION"`

	Witness       []string      `help:"A witness of the ledger, its address and verifier key: 'https://HOST/PREFIX KEY'; repeated, or with commas." placeholder:"'URL KEY'"`
	WitnessQuorum int           `help:"How many of the witnesses are enough (default: all)." placeholder:"K"`
	Checkpoints   time.Duration `help:"How far apart the ledger is published, padded, for everybody; from 1m to 24h." default:"5m" placeholder:"DURATION"`
	PurposeGrace  time.Duration `help:"How long the end of a purpose can be taken back before its data are destroyed; 0: not at all." default:"24h" placeholder:"TIME"`

	ErasureUndo   time.Duration `help:"How long every erasure can be undone before anything is destroyed, unless more is asked for; up to 720h." default:"0s" placeholder:"TIME"`
	ErasureBulk   int           `help:"Most assignments that one administrator may have erased alone within 24 hours; more need a second one's word, or 72 hours' time where nobody could give it. 0: any number." default:"10" placeholder:"N"`
	ErasureWindow time.Duration `help:"How long a destruction of keys waits for others to share it; up to 60s." default:"0s" placeholder:"TIME"`

	MQTTConnections    int     `name:"mqtt-connections" help:"Most connections over MQTT (default 20000, or five eighths of the open files)." placeholder:"N"`
	DeviceConnections  int     `help:"Most connections of devices over HTTPS (default 10000, or a quarter of the open files)." placeholder:"N"`
	APIConnections     int     `name:"api-connections" help:"Most connections of people and programs (default 2000, or an eighth of the open files)." placeholder:"N"`
	ConnectsPerAddress float64 `help:"Connections that one address may open a second, ten times as many at once; -1: any number." default:"1000" placeholder:"N"`
	ReadingsPerDevice  float64 `help:"Readings that one device may send a second, half a minute's at once; -1: any number." default:"20000" placeholder:"N"`
	BytesPerDevice     float64 `help:"Bytes that one device may send a second, likewise." default:"8388608" placeholder:"N"`

	Drain time.Duration `help:"How long the ports go on answering after the hub was told to end, while /readyz says no; up to 5m. For a load balancer that asks it." default:"0s" placeholder:"DURATION"`

	Log      string `help:"How the log on stderr is written." default:"text" enum:"text,json"`
	LogLevel string `help:"What the log tells." default:"info" enum:"debug,info,warn,error"`
	messageFlags
	profileFlags
}

func (serveCmd) Help() string {
	return `Runs the hub until it is interrupted. All ports are TLS; devices need a
certificate, people and programs one or a token.

Example:
  holdfast serve --data ./data --listen-api :8443`
}

func (c *serveCmd) Run(a *app) (err error) {
	stop, err := c.profile()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	config, err := c.config(a.ctx, c.logger(a))
	if err != nil {
		return err
	}
	if most := server.LimitMemory(); most > 0 {
		config.Logger.Info("the memory limit is nine tenths of the control group's", "bytes", most)
	}
	s, err := server.Open(a.ctx, config)
	if err != nil {
		return err
	}
	return s.Run(a.ctx, func(at server.Addresses) {
		fmt.Fprintf(a.stdout, "Holdfast is ready.\n  people and programs  %s\n  devices over HTTPS   %s\n  devices over MQTT    %s\n", peopleReach(at), at.Device, at.MQTT)
		if why := s.Suspended(); why != "" {
			fmt.Fprintf(a.stdout, "It is suspended, as a restored hub of which more may have been taken back than it knows: %s. Nobody is let in but the restore's administrator, and no device is heard. What to look at: holdfast doctor --data %s. Then stop it, and: holdfast restore confirm --data %[2]s\n", cell(why), quoted(c.Data))
		}
	})
}

// check refuses figures that are out of their range.
func (c *serveCmd) check() error {
	if c.QueryMemory != 0 && (c.QueryMemory < 32 || c.QueryMemory > 1<<20) {
		return usagef("--query-memory is MiB, from 32 to %d", 1<<20)
	}
	if c.Lookback < time.Second {
		return usagef("--prometheus-lookback is a duration from 1s")
	}
	if c.Checkpoints < time.Minute || c.Checkpoints > 24*time.Hour {
		return usagef("--checkpoints is a duration from 1m to 24h")
	}
	if c.Drain < 0 || c.Drain > 5*time.Minute {
		return usagef("--drain is a duration up to 5m")
	}
	if c.ErasureUndo < 0 || c.ErasureUndo > erasure.MaxUndo {
		return usagef("--erasure-undo is a duration up to %dh", erasure.MaxUndo/time.Hour)
	}
	if c.ErasureBulk < 0 {
		return usagef("--erasure-bulk is a number of assignments, or 0")
	}
	if c.ErasureWindow < 0 || c.ErasureWindow > time.Minute {
		return usagef("--erasure-window is a duration up to 60s")
	}
	if c.ReadCache < -1 || c.ReadCache > 1<<20 {
		return usagef("--read-cache is MiB, up to %d, or -1", 1<<20)
	}
	if c.WitnessQuorum < 0 || c.WitnessQuorum > len(c.Witness) {
		return usagef("--witness-quorum is at most the number of --witness, %d", len(c.Witness))
	}
	return nil
}

// config is what the flags say, with what the files that they name hold.
func (c *serveCmd) config(ctx context.Context, log *slog.Logger) (server.Config, error) {
	if err := c.check(); err != nil {
		return server.Config{}, err
	}
	pass, err := readPassphrase(ctx, c.Passphrase)
	if err != nil {
		return server.Config{}, err
	}
	witnesses := make([]*witness.Client, len(c.Witness))
	for i, text := range c.Witness {
		if witnesses[i], err = witness.ParseClient(text); err != nil {
			return server.Config{}, usagef("--witness: %w", err)
		}
	}
	if c.ReadCache == 0 {
		c.ReadCache = -1
	}
	grace := c.PurposeGrace
	if grace == 0 {
		grace = -1
	}
	least := uint16(tls.VersionTLS13)
	if c.DeviceTLSMin == "1.2" {
		least = tls.VersionTLS12
	}
	issuers, err := readIssuers(c.Issuers)
	if err != nil {
		return server.Config{}, err
	}
	allow, err := c.networks()
	if err != nil {
		return server.Config{}, err
	}
	mail, err := c.mail(ctx)
	if err != nil {
		return server.Config{}, err
	}
	trusted, err := authorities(c.WebhookCA)
	if err != nil {
		return server.Config{}, err
	}
	return server.Config{
		Erasures: erasure.Policy{Undo: c.ErasureUndo, Bulk: c.ErasureBulk, Window: c.ErasureWindow},
		Data:     c.Data, RootKey: c.RootKey, Passphrase: pass,
		ListenAPI: c.ListenAPI, ListenDevice: c.ListenDevice, ListenMQTT: c.ListenMQTT,
		APICert: c.APICert, APIKey: c.APIKey, DeviceTLSMin: least, Issuers: issuers,
		QueryMemory: c.QueryMemory << 20, ReadCache: c.ReadCache << 20, PromLookback: c.Lookback,
		Checkpoints: c.Checkpoints, Witnesses: witnesses, WitnessQuorum: c.WitnessQuorum,
		PurposeGrace: grace, Drain: c.Drain, Version: version(), Logger: log,
		WebhookAllow: allow, WebhookRoots: trusted, Mail: mail,
		Limits: server.Limits{
			MQTTConnections: c.MQTTConnections, DeviceConnections: c.DeviceConnections, APIConnections: c.APIConnections,
			ConnectsPerAddress: c.ConnectsPerAddress, ReadingsPerDevice: c.ReadingsPerDevice, BytesPerDevice: c.BytesPerDevice,
		},
	}, nil
}

// readIssuers reads the file of --issuers, if there is one.
func readIssuers(path string) ([]issuer.Config, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError("issuers", err)
	}
	defer f.Close()
	return issuer.Parse(f)
}

// peopleReach is the address of people and programs as they type it, and whether
// others than those of this machine can.
func peopleReach(at server.Addresses) string {
	u, err := url.Parse(at.API)
	if err != nil {
		return at.API
	}
	ip := net.ParseIP(u.Hostname())
	if ip != nil && ip.IsLoopback() {
		return at.API + "  (this machine only; --listen-api :8443 lets others in)"
	}
	if devices, err := url.Parse(at.Device); err == nil && ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort(devices.Hostname(), u.Port())
	}
	return u.String()
}

func (c *serveCmd) logger(a *app) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.Log == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}
