package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/lobby"
)

// Addresses is where a running hub listens; run.json in the data folder says it
// to commands on the same machine.
type Addresses struct {
	API    string `json:"api"`    // https://HOST:PORT
	Device string `json:"device"` // https://HOST:PORT
	MQTT   string `json:"mqtt"`   // mqtts://HOST:PORT
}

// Addresses returns where the hub listens, once Run has bound its ports.
func (s *Server) Addresses() Addresses {
	<-s.bound
	return s.at
}

// grace is how long HTTP requests under way get to end at a shutdown.
const grace = 10 * time.Second

// Run serves until ctx ends or something fails that the hub must not outlive. It
// closes the Server. ready is called when all ports answer.
func (s *Server) Run(ctx context.Context, ready func(Addresses)) (err error) {
	defer func() { err = errors.Join(err, s.stores.close()) }()
	defer s.stop()
	lis, err := s.listen()
	if err != nil {
		return err
	}
	// Keepers outlive the edges: what these hand in at the end is durable in the
	// journal, and its sessions and disclosures are still written down.
	keepers, failed := errgroup.WithContext(context.Background())
	stopKeeping := s.keep(failed, keepers)
	defer stopKeeping()

	edges, edgesFailed := errgroup.WithContext(s.edges)
	if err := s.serve(edgesFailed, edges, lis); err != nil {
		lis.close()
		return err
	}
	close(s.bound)
	data := s.config.Ground.Folder(s.config.Data)
	if err := data.WriteJSON(runFile, s.at); err != nil {
		s.log.Warn("server: write run.json", "err", err)
	}
	defer data.Remove(runFile)
	if ready != nil {
		ready(s.at)
	}

	select {
	case <-ctx.Done():
		s.leave(failed, edgesFailed)
	case <-failed.Done():
	case <-edgesFailed.Done():
	case <-s.stores.journal.Failed():
		err = holdfast.Errorf(holdfast.Unavailable, "the journal's disk failed: nothing is acknowledged any more; mend the disk, then start again")
	}
	s.stop()
	err = errors.Join(err, ended(edges.Wait()))
	stopKeeping()
	return errors.Join(err, ended(keepers.Wait()), s.grants.Close(context.Background()))
}

// leave says at /readyz that the hub is about to end, and gives whoever sends it
// connections the time to hear that. Everything is served until then.
func (s *Server) leave(failed, edgesFailed context.Context) {
	s.leaving.Store(true)
	if s.config.Drain <= 0 {
		return
	}
	s.log.Info("server: ends soon", "after", s.config.Drain)
	select {
	case <-time.After(s.config.Drain):
	case <-failed.Done():
	case <-edgesFailed.Done():
	case <-s.stores.journal.Failed():
	}
}

// ended takes the end of a context for what it is at a shutdown: no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keep starts the long runners that serve no port. They end one after the other,
// in the reverse order, so that the end is the same each time.
func (s *Server) keep(ctx context.Context, g *errgroup.Group) (stop func()) {
	var stops []func()
	outbox, alarms, expiry := s.outbox.Run, s.alarms.Run, s.erasure.RunExpiry
	if s.stores.restored.Suspended { // nothing is told to anybody; a hold may have been set since, and nothing ages
		outbox, alarms, expiry = idle, idle, idle
	}
	for _, run := range []func(context.Context) error{
		s.series.Run,
		s.sessions.Run,
		func(ctx context.Context) error { return s.ledger.Run(ctx, s.config.Checkpoints) },
		s.erasure.Run,
		s.timeline.Run,
		expiry,
		func(ctx context.Context) error {
			return s.grants.Run(ctx, func(err error) { s.log.Error("grant: write disclosures", "err", err) })
		},
		s.access.Run,
		s.desk.Run,
		outbox,
		s.twin.Run,
		alarms,
		s.runCopies,
		s.backups.Run,
	} {
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		g.Go(func() error {
			defer close(ended)
			return run(ctx)
		})
		stops = append(stops, func() { cancel(); <-ended })
		time.Sleep(s.config.Ground.Apart)
	}
	return func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}
}

// listeners are the bound ports.
type listeners struct{ api, device, mqtt net.Listener }

func (l listeners) close() {
	for _, ln := range []net.Listener{l.api, l.device, l.mqtt} {
		if ln != nil {
			ln.Close()
		}
	}
}

// listen binds every port before any is served.
func (s *Server) listen() (l listeners, err error) {
	bind := func(flag, address string) net.Listener {
		if err != nil {
			return nil
		}
		var ln net.Listener
		if ln, err = s.config.Ground.Listen("tcp", address); err != nil {
			err = holdfast.Errorf(holdfast.Unavailable, "can't listen on %s: %w (choose another with %s)", address, err, flag)
		}
		return ln
	}
	l.api = bind("--listen-api", s.config.ListenAPI)
	l.device = bind("--listen-device", s.config.ListenDevice)
	l.mqtt = bind("--listen-mqtt", s.config.ListenMQTT)
	if err != nil {
		l.close()
		return listeners{}, err
	}
	s.at = Addresses{
		API:    "https://" + l.api.Addr().String(), // for commands on this machine
		Device: "https://" + s.public(l.device),
		MQTT:   "mqtts://" + s.public(l.mqtt),
	}
	return l, nil
}

// public is the address of a listener as others write it: by an address that the
// certificate has, else by the first of its names.
func (s *Server) public(ln net.Listener) string {
	a := ln.Addr().(*net.TCPAddr)
	hosts := s.identity.Hosts()
	host := a.IP.String()
	if !slices.Contains(hosts, host) {
		host = hosts[0]
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// serve starts the edges.
func (s *Server) serve(ctx context.Context, g *errgroup.Group, l listeners) error {
	people, err := api.New(api.Deps{
		Access: s.access, Custody: s.custody, Identity: s.identity, Grants: s.grants, Query: s.query, Measure: s.series,
		Erasure: s.erasure, Ledger: s.ledger, Alarms: s.alarms, Outbox: s.outbox, Archive: s.archive, Backups: s.backups, Suspended: s.stores.restored.refuses, Desk: s.desk, Timeline: s.timeline, Twin: s.twin, Recovery: s.recovery, Prometheus: s.promql, Ending: s.edges.Done(), Limits: s.config.People,
		Gatherer: s.metrics, Ready: s.ready, Doctor: s.Doctor, Logger: s.log,
		Addresses: func() (string, string) { return s.public(l.api), s.public(l.device) }, Version: s.config.Version,
	})
	if err != nil {
		return err
	}
	s.people = people
	for _, c := range people.Metrics() {
		if err := s.metrics.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	peopleTLS, err := s.peopleTLS()
	if err != nil {
		return err
	}
	toPeople, toDevices, toMQTT := s.lobbies(l, peopleTLS)
	ports := map[string]*lobby.Lobby{"api": toPeople, "device": toDevices, "mqtt": toMQTT}
	if err := s.metrics.Register(lobby.Collector(ports)); err != nil {
		for _, p := range ports {
			p.Close()
		}
		return fmt.Errorf("register metrics: %w", err)
	}
	g.Go(func() error { return serveHTTP(ctx, api.Server(peopleTLS, people, s.log), toPeople) })
	devices := s.devices.Server(nil)
	if s.stores.restored.Suspended {
		devices.Handler = suspendedHandler{}
	}
	g.Go(func() error { return serveHTTP(ctx, devices, toDevices) })
	g.Go(func() error { return s.mqtt.Run(ctx, toMQTT) })
	return nil
}

// peopleTLS speaks HTTP/2 and HTTP/1.1. Its certificate is the hub's own, or the operator's certificate from elsewhere.
func (s *Server) peopleTLS() (*tls.Config, error) {
	c := s.identity.PeopleTLS()
	c.NextProtos = []string{"h2", "http/1.1"}
	if s.config.APICert == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(s.config.APICert, s.config.APIKey)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate or key for people and programs can't be read: %w", err)
	}
	c.GetCertificate, c.Certificates = nil, []tls.Certificate{pair}
	s.apiLeaf.Store(pair.Leaf)
	return c, nil
}

// serveHTTP serves ln, whose connections have their TLS behind them, until ctx
// ends, then lets requests under way end.
func serveHTTP(ctx context.Context, srv *http.Server, ln net.Listener) error {
	var closing sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		defer closing.Done()
		late, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if srv.Shutdown(late) != nil {
			srv.Close()
		}
	})
	closing.Add(1)
	err := srv.Serve(ln)
	if stop() { // it failed before ctx ended
		closing.Done()
	}
	closing.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}
