package api

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// FeedDelay is how long readings took from being durable to being written to who
// follows, in the last hour, of one kind of reader.
type FeedDelay struct {
	Reader   string  `json:"reader" doc:"owner, administrator or program."`
	Readings uint64  `json:"readings,omitempty" doc:"How many there were; for staff only: it says how much others read."`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// delays keeps them by minute, in buckets a tenth apart. It knows readers by their
// role alone.
type delays struct {
	seconds *prometheus.HistogramVec

	mu    sync.Mutex
	slots [60]delaySlot
}

// delaySlot is one minute of the hour.
type delaySlot struct {
	minute int64
	counts [access.Program + 1][delayBuckets]uint64
}

const (
	delayBuckets = 160
	firstDelay   = 20 * time.Microsecond
	delayGrowth  = 1.1
)

func newDelays() *delays {
	return &delays{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "holdfast_feed_delay_seconds",
		Help: "Seconds from being durable to being written to who follows, by who reads.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}}, []string{"reader"})}
}

// observe takes readings that were written at a time, by when they became durable.
func (d *delays) observe(role access.Role, at time.Time, durable []int64) {
	if len(durable) == 0 || role > access.Program {
		return
	}
	h := d.seconds.WithLabelValues(role.String())
	d.mu.Lock()
	defer d.mu.Unlock()
	minute := at.Unix() / 60
	s := &d.slots[minute%int64(len(d.slots))]
	if s.minute != minute {
		*s = delaySlot{minute: minute}
	}
	for _, t := range durable {
		took := time.Duration(max(0, at.UnixNano()-t))
		h.Observe(took.Seconds())
		i := 0
		if took > firstDelay {
			i = int(math.Ceil(math.Log(float64(took)/float64(firstDelay)) / math.Log(delayGrowth)))
		}
		s.counts[role][min(i, delayBuckets-1)]++
	}
}

// last is of the hour before now: of each kind of reader that there was.
func (d *delays) last(now time.Time) []FeedDelay {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []FeedDelay{}
	for role := access.Administrator; role <= access.Program; role++ {
		var sum [delayBuckets]uint64
		one := FeedDelay{Reader: role.String()}
		for i := range d.slots {
			if s := &d.slots[i]; s.minute > now.Unix()/60-int64(len(d.slots)) {
				for k, n := range s.counts[role] {
					sum[k] += n
					one.Readings += n
				}
			}
		}
		if one.Readings > 0 {
			one.P50, one.P99 = quantileOf(&sum, one.Readings, .5), quantileOf(&sum, one.Readings, .99)
			out = append(out, one)
		}
	}
	return out
}

// quantileOf is the end of the bucket in which a quantile lies, in ms.
func quantileOf(sum *[delayBuckets]uint64, all uint64, q float64) float64 {
	left := uint64(math.Ceil(q * float64(all)))
	for i, n := range sum {
		if n >= left {
			ms := float64(firstDelay) * math.Pow(delayGrowth, float64(i)) / float64(time.Millisecond)
			return math.Round(ms*1000) / 1000
		}
		left -= n
	}
	return math.Inf(1)
}
