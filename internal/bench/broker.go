package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/holdfast-iot/holdfast/internal/bench/load"
)

// Broker is a server for MQTT over mutual TLS, as the figures P1 to P4 load it. It
// takes the certificates of a Fleet's devices.
type Broker interface {
	Start(ctx context.Context) error
	Stop() error
	PID() int
	MQTT() string          // HOST:PORT
	Roots() *x509.CertPool // who signed its certificate, which names localhost
}

// hubBroker is a fleet's hub as a Broker.
type hubBroker struct {
	*Hub
	fleet *Fleet
}

func (h hubBroker) Start(ctx context.Context) error { return h.Hub.Start(ctx) }
func (h hubBroker) Roots() *x509.CertPool           { return h.fleet.Roots() }

// work is what a figure does to a broker in a round, once it has started.
type work func(ctx context.Context, b *Bench, server Broker, devices []tls.Certificate, round int) (Values, error)

// BrokerSide is a side of P1, P2, P3 or P4: server is loaded as the figure says, by
// the devices of fleet. It is started and stopped in each round.
func (b *Bench) BrokerSide(ctx context.Context, figure, name, version string, year int, server func(f *Fleet) (Broker, error)) (*Side, error) {
	var n int
	var do work
	switch figure {
	case "P1", "P2":
		n, do = b.connections(1000), busy(b.inFlight(map[string]int{"P1": 20, "P2": 1}[figure]))
	case "P3":
		n, do = b.connections(1000), paced
	case "P4":
		n, do = b.connections(5000), idle
	default:
		return nil, fmt.Errorf("figure %s has no broker", figure)
	}
	fleet, err := b.Fleet(ctx, n)
	if err != nil {
		return nil, err
	}
	s, err := server(fleet)
	if err != nil {
		return nil, err
	}
	devices := certificates(fleet.Devices(n))
	return &Side{Name: name, Version: version, Year: year, Round: func(ctx context.Context, round int) (v Values, err error) {
		if err := s.Start(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		return do(ctx, b, s, devices, round)
	}}, nil
}

// own is Holdfast's side of a broker's figure.
func own(figure string) Maker {
	return func(ctx context.Context, b *Bench) (*Side, error) {
		s := b.OwnSide(nil, nil)
		return b.BrokerSide(ctx, figure, s.Name, s.Version, s.Year, func(f *Fleet) (Broker, error) { return hubBroker{f.Hub(), f}, nil })
	}
}

func (b *Bench) connections(figures int) int {
	if b.Connections > 0 {
		return b.Connections
	}
	return figures
}

func (b *Bench) inFlight(figures int) int {
	if b.InFlight > 0 {
		return b.InFlight
	}
	return figures
}

// warm is how long a server is loaded before anything counts.
func (b *Bench) warm() time.Duration { return min(b.For/4, 2*time.Second) }

func (b *Bench) target(server Broker, devices []tls.Certificate) load.Target {
	t := load.Target{Addr: server.MQTT(), ServerName: "localhost", Roots: server.Roots(), Devices: devices, Version: load.V311, From: address}
	if b.Options.MQTT == "5" {
		t.Version = load.V5
	}
	return t
}

// primed connects all devices and lets each send one message: Holdfast makes a
// device's stream and this month's journal key with its first reading, for good.
func (b *Bench) primed(ctx context.Context, server Broker, devices []tls.Certificate) (*load.Conns, error) {
	conns, err := load.Hold(ctx, b.target(server, devices))
	if err != nil {
		return nil, err
	}
	if err := conns.Prime(ctx, b.Payload); err != nil {
		conns.Close()
		return nil, err
	}
	return conns, nil
}

// address spreads connections over addresses, as a fleet's are.
func address(n int) net.IP { return Loopback(n % 1000) }

// clocks are the processor times of server and generator while something counts.
type clocks struct {
	pid         int
	server, own []time.Duration
	at          []time.Time
	err         error
}

func (c *clocks) mark() {
	t, err := CPU(c.pid)
	c.err = errors.Join(c.err, err)
	c.server, c.own, c.at = append(c.server, t), append(c.own, OwnCPU()), append(c.at, time.Now())
}

// values are the cores that each used.
func (c *clocks) values() (Values, error) {
	if c.err != nil || len(c.at) < 2 {
		return nil, errors.Join(c.err, errors.New("the load did not come to its end"))
	}
	took := c.at[1].Sub(c.at[0]).Seconds()
	return Values{
		"server_cores":    (c.server[1] - c.server[0]).Seconds() / took,
		"generator_cores": (c.own[1] - c.own[0]).Seconds() / took,
	}, nil
}

// fill explains a rate by who had the processors.
func fill(r *Result, name string) string {
	server, generator := r.Of(name, "server_cores").Median, r.Of(name, "generator_cores").Median
	text := fmt.Sprintf("%s used %s, the load generator beside it %s of this machine's %d", name, Cores.Format(server), Cores.Format(generator), r.Machine.Cores)
	if server+generator > 0.85*float64(r.Machine.Cores) {
		return text + ": together they filled it"
	}
	return text
}

// P1 and P2.

func busy(window int) work {
	return func(ctx context.Context, b *Bench, server Broker, devices []tls.Certificate, _ int) (Values, error) {
		conns, err := b.primed(ctx, server, devices)
		if err != nil {
			return nil, err
		}
		defer conns.Close()
		if err := ForgetPeak(server.PID()); err != nil {
			return nil, err
		}
		runtime.GC() // of what connecting left here, not while it counts
		c := clocks{pid: server.PID()}
		done, err := conns.Busy(ctx, window, b.Payload, b.warm(), b.For, c.mark)
		if err != nil {
			return nil, err
		}
		v, err := c.values()
		if err != nil {
			return nil, err
		}
		_, peak, err := Memory(server.PID())
		v["rate"] = float64(done.Acked) / done.Elapsed.Seconds()
		v["per_core"] = v["rate"] / v["server_cores"]
		v["peak"] = float64(peak)
		return v, err
	}
}

func messages(id, what string, window string) Figure {
	return Figure{
		ID: id, Title: "Durable, encrypted messages per core, " + window + " in flight",
		What: "1,000 devices, each with a certificate of its own, publish readings of 100 bytes at QoS 1 over TLS 1.3 with " + window + " in flight. " + what,
	}
}

func p1() Figure {
	f := messages("P1", "A message counts when it is acknowledged: Holdfast has then parsed it, found whose it is, sealed it under that owner's key and synced it to disk; mosquitto, with persistence off, keeps nothing.", "20")
	f.Holdfast = own("P1")
	f.Measures = []Measure{
		{Key: "per_core", What: "messages", Unit: PerCore, Peer: mosquitto, Goal: Goal{Least: 8}, Why: whyPerCore},
		{Key: "rate", What: "messages, generator on the same machine", Unit: PerSecond, Peer: mosquitto, Goal: Goal{Least: 250_000}, Absolute: true,
			Why: func(r *Result) string { return "Both share the machine: " + fill(r, Own) + "." }},
		{Key: "peak", What: "peak memory", Unit: Bytes, Peer: mosquitto, Goal: Goal{Most: 256 << 20}, Absolute: true},
		{Key: "server_cores", What: "processor time of the server", Unit: Cores, Peer: mosquitto, Absolute: true},
		{Key: "generator_cores", What: "processor time of the load generator", Unit: Cores, Peer: mosquitto, Absolute: true},
	}
	return f
}

func p2() Figure {
	f := messages("P2", "As P1, but a device waits for each acknowledgement before it sends the next message: no server can read or answer several at once, so all pay for system calls and TLS records.", "1")
	f.Holdfast = own("P2")
	f.Measures = []Measure{
		{Key: "per_core", What: "messages", Unit: PerCore, Peer: mosquitto, Goal: Goal{Least: 1}, Why: whyPerCore},
		{Key: "rate", What: "messages, generator on the same machine", Unit: PerSecond, Peer: mosquitto, Absolute: true},
		{Key: "peak", What: "peak memory", Unit: Bytes, Peer: mosquitto, Absolute: true},
		{Key: "server_cores", What: "processor time of the server", Unit: Cores, Peer: mosquitto, Absolute: true},
		{Key: "generator_cores", What: "processor time of the load generator", Unit: Cores, Peer: mosquitto, Absolute: true},
	}
	return f
}

func whyPerCore(r *Result) string {
	text := fmt.Sprintf("A message cost Holdfast %s of processor time", Seconds.Format(1/r.Own("per_core").Median))
	if other := r.Of(mosquitto, "per_core").Median; other > 0 {
		text += fmt.Sprintf(" and %s %s", mosquitto, Seconds.Format(1/other))
	}
	return text + "; " + fill(r, Own) + "."
}

// P3.

func paced(ctx context.Context, b *Bench, server Broker, devices []tls.Certificate, round int) (Values, error) {
	rate := b.Rate
	if rate == 0 {
		rate = 10_000
	}
	conns, err := b.primed(ctx, server, devices)
	if err != nil {
		return nil, err
	}
	defer conns.Close()
	before, err := ProbeDisk(ctx, b.dir)
	if err != nil {
		return nil, err
	}
	runtime.GC()
	c := clocks{pid: server.PID()}
	done, err := conns.Pace(ctx, rate, b.Payload, b.warm(), b.For, uint64(round)+1, c.mark)
	if err != nil {
		return nil, err
	}
	after, err := ProbeDisk(ctx, b.dir)
	if err != nil {
		return nil, err
	}
	v, err := c.values()
	if err != nil {
		return nil, err
	}
	// The disk under the load is what it was just before and just after.
	bare50 := (before.OverwriteP50 + after.OverwriteP50).Seconds() / 2
	bare99 := max(before.OverwriteP99, after.OverwriteP99).Seconds()
	v["p50"], v["p99"] = Quantile(done.Latencies, 0.5).Seconds(), Quantile(done.Latencies, 0.99).Seconds()
	v["p999"] = Quantile(done.Latencies, 0.999).Seconds()
	v["late50"], v["late99"] = Quantile(done.Late, 0.5).Seconds(), Quantile(done.Late, 0.99).Seconds()
	v["bare50"], v["bare99"] = bare50, bare99
	v["times50"] = v["p50"] / bare50
	v["share99"] = v["p99"] / (0.005 + 3*bare99)
	v["rate"] = float64(len(done.Latencies)) / done.Elapsed.Seconds()
	return v, nil
}

func p3() Figure {
	why := func(r *Result) string {
		return fmt.Sprintf("Of the latency the generator's own delay is %s in the median and %s at the 99th percentile; %s.",
			Seconds.Format(r.Own("late50").Median), Seconds.Format(r.Own("late99").Median), fill(r, Own))
	}
	return Figure{
		ID: "P3", Title: "Latency of an acknowledgement at 10,000 messages a second", Holdfast: own("P3"),
		What: "1,000 devices send 10 messages a second each at phases of their own, whatever the server does; the latency runs from the time at which a message was to be sent, so a stall counts for every message that would have come in it. The bare disk is probed just before and just after each round's load.",
		Measures: []Measure{
			{Key: "p50", What: "median latency", Unit: Seconds, Peer: mosquitto, Absolute: true},
			{Key: "times50", What: "median latency by the bare disk's median", Unit: Times, Goal: Goal{Most: 8}, Why: why},
			{Key: "p99", What: "99th percentile", Unit: Seconds, Peer: mosquitto, Absolute: true},
			{Key: "share99", What: "99th percentile by 5 ms and 3 times the bare disk's", Unit: Times, Goal: Goal{Most: 1}, Why: why},
			{Key: "p999", What: "99.9th percentile", Unit: Seconds, Peer: mosquitto, Absolute: true},
			{Key: "bare50", What: "bare disk, median", Unit: Seconds},
			{Key: "bare99", What: "bare disk, 99th percentile", Unit: Seconds},
			{Key: "rate", What: "messages acknowledged", Unit: PerSecond, Peer: mosquitto, Absolute: true},
			{Key: "server_cores", What: "processor time of the server", Unit: Cores, Peer: mosquitto, Absolute: true},
			{Key: "late99", What: "the generator's own delay, 99th percentile", Unit: Seconds, Peer: mosquitto, Absolute: true},
		},
	}
}

// P4.

// settle is how long connections are silent before their memory is read.
const settle = 5 * time.Second

func idle(ctx context.Context, b *Bench, server Broker, devices []tls.Certificate, _ int) (Values, error) {
	before, _, err := Memory(server.PID())
	if err != nil {
		return nil, err
	}
	target := b.target(server, devices)
	target.Curves = []tls.CurveID{tls.X25519} // which both know: the same work for both
	conns, err := load.Hold(ctx, target)
	if err != nil {
		return nil, err
	}
	sleep(ctx, settle)
	after, _, err := Memory(server.PID())
	conns.Close()
	if err != nil {
		return nil, err
	}
	sleep(ctx, time.Second) // for the server to notice
	v, err := storm(ctx, target, server.PID(), b.For)
	if err != nil {
		return nil, err
	}
	target.Curves = nil // what Go offers first is ML-KEM with X25519
	hybrid, err := storm(ctx, target, server.PID(), b.For)
	if err != nil {
		return nil, err
	}
	v["hybrid_per_core"] = hybrid["handshakes_per_core"]
	v["rss_before"], v["rss_after"] = float64(before), float64(after)
	v["idle"] = float64(after-before) / float64(len(devices))
	return v, nil
}

// storm makes new connections for d.
func storm(ctx context.Context, target load.Target, pid int, d time.Duration) (Values, error) {
	c := clocks{pid: pid}
	done, err := load.Storm(ctx, target, 64, d, c.mark)
	if err != nil {
		return nil, err
	}
	v, err := c.values()
	if err != nil {
		return nil, err
	}
	v["handshakes"] = float64(done.Acked) / done.Elapsed.Seconds()
	v["handshakes_per_core"] = v["handshakes"] / v["server_cores"]
	return v, nil
}

func p4() Figure {
	why := func(r *Result) string { return fill(r, Own) + "." }
	whyIdle := func(r *Result) string {
		s := r.Own("idle")
		return fmt.Sprintf("The rounds differ: %s to %s. In the first, devices come slowly, since each certificate's first use is written down; later they come at once, and more stays resident outside Go's heap, where the catalog's engine allocates: looked at once with 3,000 devices, Go's heap was 43 MB in both rounds and the memory outside it 30 MB larger in the second. What holds it is not known yet.",
			Bytes.Format(s.Min), Bytes.Format(s.Max))
	}
	return Figure{
		ID: "P4", Title: "Connections: memory of an idle one, processor time of a new one", Holdfast: own("P4"),
		What: "5,000 devices, each with a certificate of its own, connect over TLS 1.3 and stay silent; the growth of the server's resident memory is divided by their number. Then devices connect anew, 64 at a time: TCP, a full handshake with client certificate, CONNECT, CONNACK, DISCONNECT. They offer X25519, which both servers know; then the same again with ML-KEM-768 and X25519 offered first, which Holdfast takes and mosquitto does not know.",
		Measures: []Measure{
			{Key: "idle", What: "memory of an idle connection", Unit: Bytes, Peer: mosquitto, Goal: Goal{Most: 1.25}, Why: whyIdle},
			{Key: "idle", What: "memory of an idle connection, in itself", Unit: Bytes, Goal: Goal{Most: 28 << 10}, Why: whyIdle},
			{Key: "handshakes_per_core", What: "new connections", Unit: PerCore, Peer: mosquitto, Goal: Goal{Least: 1.8}, Why: why},
			{Key: "hybrid_per_core", What: "new connections, ML-KEM-768 offered", Unit: PerCore, Peer: mosquitto},
			{Key: "handshakes", What: "new connections, generator on the same machine", Unit: PerSecond, Peer: mosquitto, Absolute: true},
			{Key: "rss_after", What: "memory with all of them", Unit: Bytes, Peer: mosquitto, Absolute: true},
		},
	}
}

// mosquitto is the peer of P1 to P4.
const mosquitto = "mosquitto"

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func certificates(devices []Device) []tls.Certificate {
	out := make([]tls.Certificate, len(devices))
	for i, d := range devices {
		out[i] = d.Pair
	}
	return out
}
