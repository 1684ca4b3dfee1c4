package lobby

import "github.com/prometheus/client_golang/prometheus"

// Collector shows the counts of lobbies, by the name of their ports.
func Collector(ports map[string]*Lobby) prometheus.Collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("holdfast_port_"+name, help, append([]string{"port"}, labels...), nil)
	}
	return &collector{
		ports:   ports,
		open:    d("connections", "Connections of a port that are open, those in the lobby included."),
		waiting: d("waiting", "Connections in the lobby: their handshake is not done."),
		admits:  d("admitted_total", "Connections whose handshake is done."),
		refused: d("refused_total", "Connections that were not let in, by reason.", "reason"),
	}
}

type collector struct {
	ports                          map[string]*Lobby
	open, waiting, admits, refused *prometheus.Desc
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.waiting, c.admits, c.refused} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for port, l := range c.ports {
		l.mu.Lock()
		open, waiting := l.open, len(l.guests)
		l.mu.Unlock()
		ch <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(open), port)
		ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(waiting), port)
		ch <- prometheus.MustNewConstMetric(c.admits, prometheus.CounterValue, float64(l.admits.Load()), port)
		for why := full; why < reasons; why++ {
			ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(l.refused[why].Load()), port, reasonNames[why])
		}
	}
}
