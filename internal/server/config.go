package server

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

// Config is what serve may be told. Only Data is required; every other field's
// zero value is its default.
type Config struct {
	Data       string // the data folder
	RootKey    string // default: where init put it
	Passphrase []byte // of the root key, if it has one

	ListenAPI    string // people and programs; default 127.0.0.1:8443
	ListenDevice string // devices over HTTPS; default :8444
	ListenMQTT   string // devices over MQTT; default :8883

	// Certificate and key files for ListenAPI, from an authority that browsers
	// know; default: the hub's own authority.
	APICert, APIKey string

	// DeviceTLSMin is tls.VersionTLS13 (default) or tls.VersionTLS12, for parts in
	// the field that can't do better.
	DeviceTLSMin uint16

	// Issuers are believed about who people are; none by default.
	Issuers []issuer.Config

	// Witnesses cosign what the ledger publishes; WitnessQuorum of them are enough, 0:
	// all.
	Witnesses     []*witness.Client
	WitnessQuorum int

	// Checkpoints is how far apart the ledger is published; 0: 5 minutes.
	Checkpoints time.Duration

	// Drain is how long the ports go on answering after the hub was told to end, while
	// /readyz says no: for a load balancer to notice.
	Drain time.Duration

	// Ground is what the hub stands on; nil is this machine.
	Ground *Ground
	Limits Limits
	People api.Limits // of people and programs, each with its default

	// QueryMemory is how many bytes all queries under way may take together, one of
	// them a quarter; 0: what internal/query makes of the process's memory limit.
	QueryMemory int64
	// ReadCache is how many bytes of decoded readings are kept in memory for queries
	// that are asked again; 0: 64 MiB, negative: none.
	ReadCache int64

	// PromLookback is how long a reading is the present value of its stream in PromQL; 0:
	// an hour.
	PromLookback time.Duration

	// PurposeGrace is how long a purpose that has ended can be revived, and its data are
	// not destroyed for its end; 0: a day, negative: not at all.
	PurposeGrace time.Duration

	// Erasures is what is asked of erasures beyond the right to them; zero: nothing.
	Erasures erasure.Policy

	// WebhookAllow are networks that are not public and webhooks may be in;
	// WebhookRoots certify webhooks' servers, nil: whom the system trusts.
	WebhookAllow []netip.Prefix
	WebhookRoots *x509.CertPool
	// Mail is the server that mail goes through; nil: none is sent.
	Mail *outbox.Mail

	Version string       // of this program, for /openapi.json
	Logger  *slog.Logger // default: nothing is logged

	// restored says that the catalog was put back to an earlier state than the
	// keyring's: see ReplayTakeBacks.
	restored bool
	// drill says that the holders are those of a hub that may run: they are asked to
	// open, and for nothing else.
	drill bool
	// migrates says that the folder of an older version is carried to this one; else it
	// is refused as it is.
	migrates bool
}

func (c Config) withDefaults() Config {
	if c.ListenAPI == "" {
		c.ListenAPI = "127.0.0.1:8443"
	}
	if c.ListenDevice == "" {
		c.ListenDevice = ":8444"
	}
	if c.ListenMQTT == "" {
		c.ListenMQTT = ":8883"
	}
	if c.DeviceTLSMin == 0 {
		c.DeviceTLSMin = tls.VersionTLS13
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Ground == nil {
		c.Ground = Machine()
	}
	if c.Checkpoints == 0 {
		c.Checkpoints = c.Ground.Checkpoint
	}
	return c
}
