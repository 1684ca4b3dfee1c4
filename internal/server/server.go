// Package server puts the house together: it opens what is below, wires it, and
// runs it. Every choice of a driver and every "who is given what" stands here and
// nowhere else.
//
// It promises that nothing listens before what a crash left is mended, and that a
// shutdown loses nothing: first the edges stop, then what they handed in becomes
// durable, then the keepers stop, then the stores close.
package server

import (
	"context"
	"crypto/x509"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/deviceapi"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/handover"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/promapi"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/recovery"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/timeline"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Server is a hub, open and not yet running.
type Server struct {
	config Config
	log    *slog.Logger
	stores *stores

	failedDecisions prometheus.Counter
	undecidedEver   atomic.Int64 // what it counts

	ledger   *ledger.Ledger
	identity *identity.Identity
	access   *access.Access
	custody  *custody.Custody
	grants   *grant.Register
	series   *series.Series
	outbox   *outbox.Outbox
	twin     *twin.Store
	recovery *recovery.Store
	alarms   *alarm.Alarms
	sessions *ingest.Sessions
	clock    *ingest.Clock
	ingest   *ingest.Gate
	query    *query.Query
	erasure  *erasure.Gate
	archive  *archive.Archive
	backups  *backup.Keeper
	desk     *handover.Desk
	timeline *timeline.Timeline
	mqtt     *mqtt.Server
	devices  *deviceapi.API
	people   *api.API // once it runs
	promql   *promapi.Engine

	host      host
	readiness readiness
	leaving   atomic.Bool                      // told to end, and its ports still answer
	apiLeaf   atomic.Pointer[x509.Certificate] // of --api-cert, in use

	quotas  *budget.Quotas
	metrics *prometheus.Registry
	edges   context.Context // ends when the edges are to stop
	stop    context.CancelFunc
	bound   chan struct{} // closed when Addresses is known
	at      Addresses
}

// Open opens the data folder and mends what a crash left: it finishes or undoes a
// rotation of keys, replays the journal, and carries out the erasures that were
// asked for. Nothing listens yet.
func Open(ctx context.Context, c Config) (_ *Server, err error) {
	c.migrates = true
	return openToServe(ctx, c)
}

// openToServe is Open for a folder of this version.
func openToServe(ctx context.Context, c Config) (_ *Server, err error) {
	s, err := openKept(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stores.close()
		}
	}()
	s.edges, s.stop = context.WithCancel(context.Background())
	context.AfterFunc(s.edges, s.twin.Release)
	if err := s.openEdges(); err != nil {
		return nil, err
	}
	return s, s.registerMetrics()
}

// openKept is Open without edges.
func openKept(ctx context.Context, c Config) (_ *Server, err error) {
	c = c.withDefaults()
	s := &Server{config: c, log: c.Logger, metrics: prometheus.NewRegistry(), bound: make(chan struct{}), host: machineHost()}
	if s.stores, err = openStores(ctx, c); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stores.close()
		}
	}()
	if err := s.openKeepers(ctx); err != nil {
		return nil, err
	}
	return s, s.openGates(ctx)
}

func (s *Server) openKeepers(ctx context.Context) (err error) {
	db, v := s.stores.catalog, s.stores.vault
	if s.ledger, err = ledger.Open(ctx, db, v); err != nil {
		return err
	}
	if !s.stores.folder.named(s.ledger.Origin()) {
		return damagedFolder(s.config.Data, "at byte %d: it names another hub than the catalog", 0)
	}
	v.Accompany(takeBacks{s.ledger})
	if s.config.restored { // its ledger gets a new name before it signs anything
	} else if err := s.ledger.KeepOutside(ctx, headFile{s.config.Ground.Folder(s.config.Data)}); err != nil {
		return forked(s.config.Data, err)
	}
	enough := s.config.WitnessQuorum
	if enough == 0 {
		enough = len(s.config.Witnesses)
	}
	if err := s.ledger.Witnesses(ctx, enough, s.config.Witnesses); err != nil {
		return err
	}
	if s.config.restored { // first comes what was taken back since
		s.recovery = recovery.New(db, v, s.ledger, nil)
	} else if s.recovery, err = recovery.Open(ctx, db, v, s.ledger, nil); err != nil {
		return err
	}
	if s.identity, err = identity.Open(ctx, identity.Deps{Catalog: db, Vault: v, Ledger: s.ledger}, identity.Options{Log: s.log}); err != nil {
		return err
	}
	issuers, err := issuer.Open(s.config.Issuers, issuer.Options{Log: s.log})
	if err != nil {
		return err
	}
	s.custody = custody.New(db, v, s.ledger, custody.Options{Now: s.config.Ground.Hands,
		KeepOut: func(ctx context.Context, tx *sql.Tx, d custody.Device, until time.Time) error { // when all is open
			return s.grants.BarPast(ctx, tx, d.Owner, d.Assignment, d.Added, until)
		}})
	people := access.Deps{Catalog: db, Vault: v, Ledger: s.ledger, Authority: s.identity, Issuers: issuers,
		AddParty: s.addPerson, Operating: s.custody.Operating, Grant: s.grantOf}
	if s.access, err = access.Open(ctx, people, access.Options{Log: s.log}); err != nil {
		return err
	}
	if s.grants, err = grant.Open(ctx, db, v, s.ledger, grant.Options{Holdings: s.custody, Grace: s.config.PurposeGrace}); err != nil {
		return err
	}
	s.outbox, err = outbox.Open(ctx, outbox.Deps{Catalog: db, Vault: v, Ledger: s.ledger},
		outbox.Options{Log: s.log, Allow: s.config.WebhookAllow, Roots: s.config.WebhookRoots, Mail: s.config.Mail,
			Still: func(ctx context.Context, rule holdfast.AlarmID, about []holdfast.AssignmentID) error {
				return s.alarms.Still(ctx, rule, about) // both run when all is open
			}})
	if err != nil {
		return err
	}
	s.twin = twin.New(db, v, s.ledger, twinHouse{s.custody, s.grants, s.config.Ground.Hands, func(a holdfast.AssignmentID) error { return s.erasure.Ends(a) }}, twin.Options{Log: s.log})
	if s.sessions, s.clock, err = ingest.OpenSessions(ctx, db, v); err != nil {
		return err
	}
	// Packet ids go to the catalog before the records that carried them go.
	log := s.sessions.Guard(s.stores.journal)
	scale := s.config.Ground.Series
	scale.Logger = s.log
	if s.config.ReadCache != 0 {
		scale.CacheBytes = s.config.ReadCache
	}
	s.series = series.New(db, log, s.stores.blobs, v, scale)
	if s.config.restored && s.stores.journal.End() == s.stores.journal.Start() { // a backup holds no journal
		if err := s.series.Rebase(ctx); err != nil {
			return err
		}
	}
	return s.series.Recover(ctx, s.sessions.Replay)
}

// forked says what to do about a ledger that does not go on from its last head.
func forked(dir string, err error) error {
	if holdfast.KindOf(err) != holdfast.Conflict {
		return err
	}
	return holdfast.Errorf(holdfast.Conflict, "%w (%s). Nothing was changed. Put back the newest catalog and %s; "+
		"or, if this is the newest that there is, give the ledger a new name with `holdfast ledger renew --data %s`",
		err, filepath.Join(dir, ledgerFile), ledgerFile, dir)
}

func (s *Server) openGates(ctx context.Context) (err error) {
	if err = s.openAlarms(ctx); err != nil {
		return err
	}
	if err = s.openBackups(ctx); err != nil {
		return err
	}
	s.erasure, err = erasure.Open(ctx, erasure.Deps{
		Catalog: s.stores.catalog, Vault: s.stores.vault, Ledger: s.ledger, Series: s.series,
		Grants: s.grants, Custody: s.custody, Places: s.places(), Logger: s.log,
		Arrival: func() int64 { return s.clock.Now() }, Fault: s.config.Ground.Erasing,
		People: s.access, Outbox: s.outbox, Policy: s.config.Erasures,
		Paperwork: s.paperwork(), Suspended: s.stores.restored.Suspended, Resealed: s.backups.Resealed,
	})
	if err != nil {
		return err
	}
	last, err := s.erasure.LastAsked(ctx)
	if err != nil {
		return err
	}
	s.clock.AtLeast(last)  // what arrives now came after that, whatever the system's clock says
	if s.config.restored { // first comes what was taken back since
	} else if err := s.erasure.Once(ctx); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil { // a holder or a disk that is away keeps nobody else's data from him
		s.log.Error("erasure: not finished, will be tried again", "err", err)
	}
	s.ingest = ingest.New(s.custody, s.grants, s.stores.vault, s.stores.journal, s.series, s.sessions, s.clock, ingest.Options{Hold: s.erasure.Hold})
	s.failedDecisions = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "holdfast_policy_failed_decisions_total", Help: "Decisions that could not be made and were denials. Any is a fault.",
	})
	s.query = query.New(s.custody, s.grants, s.series, query.Options{Erasures: s.erasure, Permissions: s.access, Alarm: s.undecided, Budget: query.Budget{Memory: s.config.QueryMemory}})
	s.promql = promapi.New(s.query, s.custody, promapi.Options{Lookback: s.config.PromLookback, Version: s.config.Version})
	s.archive = archive.New(s.query, s.custody, s.grants, s.ledger)
	s.desk = handover.New(handover.Deps{Custody: s.custody, Identity: s.identity, Grants: s.grants, Erasure: s.erasure, Logger: s.log})
	s.timeline = timeline.New(timeline.Deps{
		Custody: s.custody, Query: s.query, Series: s.series, Ingest: s.ingest, Erasure: s.erasure, Logger: s.log, Now: s.config.Ground.Hands,
		Held: func(a custody.Assignment) bool {
			_, held := s.grants.Keeps(a.ID, "", false, a.Owner, a.Subject)
			return held
		},
	})
	return nil
}

// undecided sounds the alarm for policies that could not be evaluated.
func (s *Server) undecided(policies []string) {
	s.failedDecisions.Inc()
	s.undecidedEver.Add(1)
	s.log.Error("query: a decision could not be made and is a denial", "policies", policies)
}

// toldOf counts the recipients of what an erasure covers: whoever there is was told.
func (s *Server) toldOf(ctx context.Context, e erasure.Erasure) (*erasure.Told, error) {
	told, _, err := s.erasure.Retractions(ctx, e.ID)
	return &erasure.Told{Recipients: told, Told: told}, err
}

// places is where an owner's data can be, for package erasure.
func (s *Server) places() erasure.Places {
	return erasure.Places{
		Connections: s.identity.Erase,
		Credentials: s.access.Erase,
		Grants:      s.grants.Erase,
		Sessions:    s.sessions.Erase,
		Wills: func(ctx context.Context, scope holdfast.Scope) error {
			if s.mqtt == nil { // nothing is served yet
				return nil
			}
			return s.mqtt.Erase(ctx, scope)
		},
		Memory: s.series.Forget,
		Twins:  s.twin.Erase,
		Readings: func(ctx context.Context, scope holdfast.Scope) error {
			scope.Before = 0 // while the erasure held the streams, nothing came in
			_, err := s.series.Erase(ctx, scope)
			return err
		},
		Journal:  s.emptyJournal,
		Alarms:   s.alarms.Erase,
		Messages: s.outbox.Erase,
		Ledger:   s.ledger.Erase,
		Custody:  s.custody.Erase,
		Catalog:  s.stores.catalog.Purge,
	}
}

// emptyJournal takes all that is in the journal now out of its files: what lives is
// rolled, then they are trimmed and zeroed. A read that takes its tail from them
// holds that up for a moment.
func (s *Server) emptyJournal(ctx context.Context) error {
	end := s.stores.journal.End()
	if err := s.stores.journal.Cut(); err != nil {
		return err
	}
	for range 100 {
		if err := s.series.Roll(ctx); err != nil {
			return err
		}
		if s.stores.journal.Start() >= end {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return holdfast.Errorf(holdfast.Unavailable, "empty the journal: a read still needs what is in it")
}

func (s *Server) openEdges() error {
	s.quotas = budget.NewQuotas()
	// Connections under WebSocket come through the devices' port.
	most := connectionsOf(openFiles(), s.config.Limits)
	s.mqtt = mqtt.New(s.authenticateMQTT, gate{s.edges, s.ingest}, sessions{s.sessions},
		mqtt.Options{Track: s.trackMQTT, Logger: s.log, MaxConnections: most.mqtt + most.device, Quota: s.quotaOfPeer,
			Source: subscriptions{s}, Twin: twinAnswers{s.twin}})
	s.devices = deviceapi.New(deviceapi.Deps{Identity: s.identity, Gate: s.ingest, Custody: s.custody, MQTT: s.mqtt, Twin: twinPort{s.twin}},
		deviceapi.Options{Logger: s.log, Now: s.clock.Now, Quota: s.quota})
	return nil
}

func (s *Server) registerMetrics() error {
	all := []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	all = append(all, s.ingest.Metrics()...)
	all = append(all, s.ledger.Metrics()...)
	all = append(all, s.access.Metrics()...)
	all = append(all, s.erasure.Metrics()...)
	all = append(all, s.backups.Metrics()...)
	all = append(all, s.stores.vault.Metrics()...)
	all = append(all, s.series.Metrics()...)
	all = append(all, s.query.Metrics()...)
	all = append(all, s.twin.Metrics()...)
	all = append(all, s.devices.Metrics()...)
	all = append(all, s.outbox.Metrics()...)
	all = append(all, s.alarms.Metrics()...)
	all = append(all, s.mqtt.Collector(), s.journalMetrics(), s.failedDecisions, s.suspendedMetric())
	for _, c := range all {
		if err := s.metrics.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
