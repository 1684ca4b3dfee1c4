package mqtt

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
)

// quotas gives each device r, and each child the rate that stands beside its name.
func quotas(r budget.Rate, children map[string]budget.Rate) func(context.Context, Peer, string) *budget.Allowance {
	q, c := budget.NewQuotas(), map[string]*budget.Quotas{}
	for name := range children {
		c[name] = budget.NewQuotas()
	}
	return func(_ context.Context, p Peer, child string) *budget.Allowance {
		if child != "" {
			return c[child].Of(p.Device, children[child], 0)
		}
		return q.Of(p.Device, r, 0)
	}
}

// A device over its quota is read from no faster, and loses nothing; its keep-alive
// does not run meanwhile.
func TestQuotaPausesReading(t *testing.T) {
	for name, r := range map[string]budget.Rate{
		"readings": {Readings: 10, Burst: time.Second},
		"bytes":    {Bytes: 10 * 20, Burst: time.Second}, // a publish has 20 bytes
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			c := newPipes(t, h, Options{Quota: quotas(r, nil)}).dial(holdfast.DeviceID{1})
			c.connect(hello{version: v311, id: "a", clean: true, keepAlive: 5})
			start := time.Now()
			for i := range 200 {
				c.send(c.publish(pub{qos: 1, id: uint16(i + 1), topic: "data/x", payload: strings.Repeat("1", 8)}))
				c.expectCode(typePuback, uint16(i+1), success)
			}
			if d := time.Since(start); d < 18*time.Second || d > 21*time.Second {
				t.Errorf("%s: 200 publishes took %s", name, d)
			}
			if n := len(h.arrivals()); n != 200 {
				t.Errorf("%s: %d arrived", name, n)
			}
		})
	}
}

// Two connections of a device share its quota.
func TestQuotaIsTheDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t, newHub(), Options{Quota: quotas(budget.Rate{Readings: 10, Burst: time.Second}, nil)})
		start := time.Now()
		var both [2]*client
		for i := range both {
			both[i] = p.dial(holdfast.DeviceID{1})
			both[i].connect(hello{version: v5, id: string(rune('a' + i)), clean: true})
		}
		for i := range 50 {
			for _, c := range both {
				c.send(c.publish(pub{qos: 1, id: uint16(i + 1), topic: "data/x", payload: "1"}))
			}
			for _, c := range both {
				c.expectCode(typePuback, uint16(i+1), success)
			}
		}
		if d := time.Since(start); d < 8*time.Second || d > 10*time.Second {
			t.Errorf("100 publishes of 10 a second took %s", d)
		}
	})
}

// Slowing has a bound: who owes more than that is refused until he owes less.
// 3.1.1 is acknowledged all the same, and the refusal shown.
func TestQuotaFarExceeded(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{Quota: quotas(budget.Rate{Bytes: 1000, Burst: time.Second}, nil)})
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", clean: true})
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: `"` + strings.Repeat("x", 21_000) + `"`}))
			c.expectCode(typePuback, 1, success) // its first, whatever its size
			over := reason(success)
			if v == v5 {
				over = quotaExceeded
			}
			c.send(c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "2"}))
			c.expectCode(typePuback, 2, over)
			if r := p.s.Refusals(); len(r) != 1 || r[0].Code != byte(quotaExceeded) {
				t.Errorf("refusals: %+v", r)
			}
			time.Sleep(20 * time.Second)
			c.send(c.publish(pub{qos: 1, id: 3, topic: "data/x", payload: "3"}))
			c.expectCode(typePuback, 3, success)
			if n := len(h.arrivals()); n != 2 {
				t.Errorf("%d arrived", n)
			}
		})
	})
}

// A child over its quota is refused alone: its gateway and its siblings go on at
// once.
func TestQuotaOfAChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{Quota: quotas(budget.Rate{Readings: 5, Burst: time.Second},
			map[string]budget.Rate{"wild": {Readings: 2, Burst: time.Second}, "calm": {Readings: 100, Burst: time.Second}})})
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "a", clean: true})
		start := time.Now()
		refused := 0
		for i := range uint16(20) {
			c.send(c.publish(pub{qos: 1, id: 2*i + 1, topic: "child/wild/data/x", payload: "1"}))
			if answer := c.next(); answer.kind != typePuback {
				t.Fatal(answer)
			} else if len(answer.body) > 2 && answer.body[2] == byte(quotaExceeded) {
				refused++
			}
			c.send(c.publish(pub{qos: 1, id: 2*i + 2, topic: "child/calm/data/x", payload: "1"}))
			c.expectCode(typePuback, 2*i+2, success)
		}
		if refused != 17 { // the burst is 2; one more made the debt
			t.Errorf("%d of 20 were refused", refused)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("the gateway was slowed for %s", d)
		}
		time.Sleep(2 * time.Second)
		c.send(c.publish(pub{qos: 1, id: 100, topic: "child/wild/data/x", payload: "1"}))
		c.expectCode(typePuback, 100, success)
	})
}

// BenchmarkConsumeQuota is BenchmarkConsume's read of 20 publishes with and without
// a quota: what that costs a publish is the difference.
func BenchmarkConsumeQuota(b *testing.B) {
	never := budget.Rate{Readings: 1e9, Bytes: 1e12, Burst: time.Hour}
	for _, x := range []struct {
		name, topic string
		quota       func(context.Context, Peer, string) *budget.Allowance
	}{
		{"device/none", "data/engine/temperature", nil},
		{"device/quota", "data/engine/temperature", quotas(never, nil)},
		{"child/none", "child/a/data/temperature", nil},
		{"child/quota", "child/a/data/temperature", quotas(never, map[string]budget.Rate{"a": never})},
	} {
		b.Run(x.name, func(b *testing.B) {
			c := benchConn(v5)
			if x.quota != nil {
				c.s.o.Quota = x.quota
				c.spending.own = x.quota(b.Context(), c.peer, "")
			}
			var raw []byte
			for i := range 20 {
				raw = append(raw, pub{qos: 1, id: uint16(i + 1), topic: x.topic, payload: "21.53"}.bytes(v5)...)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%20 == 0 {
					c.last = time.Now()
					if _, _, err := c.consume(raw); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
