package mqtt

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts. No label names a device, client, topic or owner.
type metrics struct {
	connected, disconnected atomic.Uint64
	refused                 [refusalReasons]atomic.Uint64
	bytesIn, bytesOut       atomic.Uint64
	repeats                 atomic.Uint64 // QoS 2 publishes that were here already
	wills                   atomic.Uint64
	paused                  atomic.Uint64 // reads, for the quota
	quotaRefused            atomic.Uint64 // publishes
	unacknowledged          atomic.Uint64 // connections ended because the way in failed
	received                [16]atomic.Uint64
	refusedConnects         [256]atomic.Uint64
	refusedPublishes        [256]atomic.Uint64
	ended                   [256]atomic.Uint64
	refusedFilters          [256]atomic.Uint64

	subscribed, unsubscribed atomic.Uint64
	published                [2]atomic.Uint64 // by QoS
	resent                   atomic.Uint64
	expired, unfit           atomic.Uint64 // messages that were not sent
	slow                     atomic.Uint64 // subscriptions
	strangeAcks              atomic.Uint64
}

// Why a connection ended before there was anybody to tell.
const (
	tooMany       = iota // MaxConnections
	tooManySilent        // of one device, without CONNECT
	noHandshake          // where the listener has left it to us
	noConnect            // in time
	refusalReasons
)

var refusalNames = [refusalReasons]string{"connections", "silent connections", "handshake", "timeout"}

func (m *metrics) count(by *[256]atomic.Uint64, code reason) { by[code].Add(1) }

var packetNames = [16]string{"", "connect", "connack", "publish", "puback", "pubrec", "pubrel", "pubcomp",
	"subscribe", "suback", "unsubscribe", "unsuback", "pingreq", "pingresp", "disconnect", "auth"}

// collector shows a server's metrics to Prometheus.
type collector struct {
	m    *metrics
	wait func() int // how many wills wait
	connections, connects, closed, bytes, packets,
	refused, refusedConnects, ended, repeats, wills, waiting, paused, quota, unack,
	subscriptions, refusedFilters, published, resent, unsent, slow, strangeAcks *prometheus.Desc
}

// Collector returns the server's metrics.
func (s *Server) Collector() prometheus.Collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("holdfast_mqtt_"+name, help, labels, nil)
	}
	return &collector{
		m:               &s.m,
		wait:            s.registry.waiting,
		connections:     d("connections", "Connections that have been accepted and are open."),
		connects:        d("connects_total", "Connections that have been accepted."),
		closed:          d("refused_total", "Connections closed before they were connected and without an answer, by reason.", "reason"),
		bytes:           d("bytes_total", "Bytes of MQTT packets.", "direction"),
		packets:         d("packets_received_total", "Packets received.", "type"),
		refused:         d("publishes_refused_total", "Publishes refused for good, by MQTT 5 reason code; 3.1.1 clients are not told.", "code"),
		refusedConnects: d("connects_refused_total", "CONNECTs refused, by MQTT 5 reason code.", "code"),
		ended:           d("disconnects_total", "Connections ended, by the MQTT 5 reason code of the server; 0x00: by the client or the network.", "code"),
		repeats:         d("qos2_repeats_total", "QoS 2 publishes that had been received before."),
		wills:           d("wills_total", "Wills published."),
		waiting:         d("wills_waiting", "Wills that wait to be published."),
		paused:          d("quota_pauses_total", "Reads put off because a device was over its quota."),
		quota:           d("quota_refused_total", "Publishes refused because a device was far over its quota, or a child over its own."),
		unack:           d("unavailable_total", "Connections ended because readings could not be taken in."),
		subscriptions:   d("subscriptions", "Subscriptions of connections that are open."),
		refusedFilters:  d("subscriptions_refused_total", "Topic filters refused, by MQTT 5 reason code; 3.1.1 clients hear 0x80.", "code"),
		published:       d("messages_sent_total", "Messages sent to subscribers.", "qos"),
		resent:          d("messages_resent_total", "Of those, messages that a session had in flight on an earlier connection."),
		unsent:          d("messages_unsent_total", "Messages not sent, by reason.", "reason"),
		slow:            d("slow_subscribers_total", "Subscriptions whose client was cut off because it did not keep up."),
		strangeAcks:     d("unknown_acknowledgements_total", "Acknowledgements of messages that were not in flight."),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.connects, c.closed, c.bytes, c.packets,
		c.refused, c.refusedConnects, c.ended, c.repeats, c.wills, c.waiting, c.paused, c.quota, c.unack,
		c.subscriptions, c.refusedFilters, c.published, c.resent, c.unsent, c.slow, c.strangeAcks} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	gone := c.m.disconnected.Load() // first: never more than connected
	in := c.m.connected.Load()
	ch <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(in-gone))
	ch <- prometheus.MustNewConstMetric(c.connects, prometheus.CounterValue, float64(in))
	for why := range refusalReasons {
		counter(c.closed, &c.m.refused[why], refusalNames[why])
	}
	counter(c.bytes, &c.m.bytesIn, "in")
	counter(c.bytes, &c.m.bytesOut, "out")
	counter(c.repeats, &c.m.repeats)
	counter(c.wills, &c.m.wills)
	ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(c.wait()))
	counter(c.paused, &c.m.paused)
	counter(c.quota, &c.m.quotaRefused)
	counter(c.unack, &c.m.unacknowledged)
	ended := c.m.unsubscribed.Load() // first: never more than subscribed
	ch <- prometheus.MustNewConstMetric(c.subscriptions, prometheus.GaugeValue, float64(c.m.subscribed.Load()-ended))
	counter(c.published, &c.m.published[0], "0")
	counter(c.published, &c.m.published[1], "1")
	counter(c.resent, &c.m.resent)
	counter(c.unsent, &c.m.expired, "expired")
	counter(c.unsent, &c.m.unfit, "too large")
	counter(c.slow, &c.m.slow)
	counter(c.strangeAcks, &c.m.strangeAcks)
	for i, name := range packetNames {
		if name != "" {
			counter(c.packets, &c.m.received[i], name)
		}
	}
	for code := range 256 {
		label := fmt.Sprintf("0x%02X", code)
		for d, by := range map[*prometheus.Desc]*[256]atomic.Uint64{
			c.refused: &c.m.refusedPublishes, c.refusedConnects: &c.m.refusedConnects, c.ended: &c.m.ended, c.refusedFilters: &c.m.refusedFilters,
		} {
			if by[code].Load() > 0 {
				counter(d, &by[code], label)
			}
		}
	}
}

// keptRefusals is how many refusals are remembered.
const keptRefusals = 128

// Refusal is a publish that was refused for good. Clients of MQTT 3.1.1 can't be
// told, so an operator must be able to see it.
type Refusal struct {
	At     time.Time
	Device holdfast.DeviceID
	Code   byte   // MQTT 5 reason code
	Reason string // of the device's message, without its content
}

// refusals is a ring of the last ones.
type refusals struct {
	mu   sync.Mutex
	ring [keptRefusals]Refusal
	n    int // ever
}

// Refusals returns the last refusals, newest first.
func (s *Server) Refusals() []Refusal {
	r := &s.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Refusal, 0, min(r.n, keptRefusals))
	for i := r.n - 1; i >= 0 && len(out) < keptRefusals; i-- {
		out = append(out, r.ring[i%keptRefusals])
	}
	return out
}

// refused notes a publish that was refused for good.
func (s *Server) refused(p Peer, code reason, why string) {
	s.m.count(&s.m.refusedPublishes, code)
	r := &s.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.n%keptRefusals] = Refusal{At: time.Now(), Device: p.Device, Code: byte(code), Reason: why}
	r.n++
}

// failed tells the operator, once a second at most, what may work later and left
// publishes unacknowledged.
func (s *Server) failed(err error) {
	s.m.unacknowledged.Add(1)
	s.warnings.Do(func() { s.log.Warn("mqtt: readings not taken in, their connections end", "error", err) })
}
