package mqtt

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// TestWillsThatWaitAreFew: each new client id of a device may leave a will behind,
// so how many of them wait is bounded; none is lost.
func TestWillsThatWaitAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, ids = 4, 20
		h := newHub()
		p := newPipes(t, h, Options{MaxPerDevice: limit, MaxWillDelay: time.Hour})
		hour := []byte{propSessionExpiry, 0, 0, 14, 16}
		for i := range ids {
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v5, id: fmt.Sprint("id-", i), props: hour, will: &testWill{topic: "data/gone", payload: "1", delay: 1800}})
			c.nc.Close()
			synctest.Wait()
		}
		if n := len(p.s.registry.slots); n != limit {
			t.Errorf("%d wills wait, want %d", n, limit)
		}
		if n := len(h.arrivals()); n != ids-limit {
			t.Errorf("%d wills were published at once, want %d", n, ids-limit)
		}
		// One that comes back takes its will along, and makes room for another.
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "id-0", props: hour})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(h.arrivals()); n != ids-1 {
			t.Errorf("%d wills, want %d", n, ids-1)
		}
		if n := len(p.s.registry.wills); n != 0 {
			t.Errorf("%d devices still have wills", n)
		}
	})
}
