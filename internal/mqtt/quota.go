package mqtt

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast/internal/budget"
)

// spending is what a connection takes of its device's allowance.
type spending struct {
	own      *budget.Allowance // nil before CONNACK, or if nothing is bounded
	readings int               // of the present read, to be taken
	others   int               // bytes of it that children pay
	overdraw bool              // the device owes so much that it is refused
}

// begin looks, before a read is handled, whether what the device owes has become
// less. The cost of a quota lies in a read, not in each publish of it.
func (s *spending) begin(now time.Time, most time.Duration) {
	if s.overdraw {
		s.overdraw = s.own.Debt(now.UnixNano()) > most
	}
}

// charge notes what a publish takes, or refuses it. A device is slowed first, see
// pace. A child that is over its own quota is refused at once: to slow it would
// slow its gateway, and with it all its siblings.
func (c *conn) charge(r *route, readings, bytes int) error {
	readings = max(readings, 1)
	if r.child == "" {
		c.spending.readings += readings
		if c.spending.overdraw {
			c.s.m.quotaRefused.Add(1)
			return &fault{quotaExceeded, "the device sends more than its quota"}
		}
		return nil
	}
	c.spending.others += bytes
	if !r.asked {
		r.asked, r.quota = true, c.s.o.Quota(context.Background(), c.peer, r.child)
	}
	now := c.last.UnixNano()
	if r.quota.Debt(now) > 0 {
		c.s.m.quotaRefused.Add(1)
		return &fault{quotaExceeded, "the child sends more than its quota"}
	}
	r.quota.Take(now, readings, bytes)
	return nil
}

// pace takes what was read and pauses the reader of a device that is over its
// quota: what it sends then waits in its own queue, held back by TCP and, in
// MQTT 5, by Receive Maximum.
func (c *conn) pace(bytes int) {
	s := &c.spending
	now := time.Now()
	if s.own != nil {
		debt := s.own.Take(now.UnixNano(), s.readings, bytes-s.others)
		s.readings, s.others = 0, 0
		if debt > 0 {
			pause := min(debt, c.s.o.MaxPause)
			s.overdraw = debt-pause > c.s.o.MaxPause
			c.s.m.paused.Add(1)
			c.wait(now.Add(pause), func() bool { return false })
			now = time.Now()
		}
	}
	c.last = now // a commit or a pause is not the client's silence
}
