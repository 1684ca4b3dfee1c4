package series

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// running runs r.Run beside f.
func (r *rig) running(f func()) {
	ctx, stop := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	f()
	stop()
	r.must(<-done)
}

// TestSlowDevicesAreRolledOnceAnHour: their tail is short.
func TestSlowDevicesAreRolledOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.running(func() {
			for n := range 3*60 - 1 {
				r.must(r.sendCounted(alice, n))
				time.Sleep(time.Minute)
			}
			synctest.Wait()
		})
		if n := r.count(`SELECT count(*) FROM chunk`); n != 2 {
			t.Errorf("%d chunks in just under three hours", n)
		}
		r.must(counted(r.Scan(t.Context(), alice, testStream(1), holdfast.Always), 3*60-1))
	})
}

// TestBusyDevicesAreRolledOften: a scan would have many records to open.
func TestBusyDevicesAreRolledOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.running(func() {
			for n := range 2 * fewRecords {
				r.must(r.sendCounted(alice, n))
			}
			time.Sleep(6 * time.Minute)
			synctest.Wait()
		})
		if n := r.count(`SELECT count(*) FROM chunk`); n != 1 {
			t.Errorf("%d chunks", n)
		}
	})
}

// TestAFailedRollIsLeftAlone: a disk that is full is not asked all the time, however
// much waits.
func TestAFailedRollIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Bytes: 1})
		tries := 0
		r.fault = func(step string) error {
			if tries++; tries <= 8 {
				return errors.New("the disk is full")
			}
			return nil
		}
		r.running(func() {
			for n := range 10 * 60 {
				r.must(r.sendCounted(alice, n))
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if tries <= 8 || r.tail.size() > 2000 {
				t.Errorf("%d tries, %d bytes in the tail", tries, r.tail.size())
			}
		})
		r.must(counted(r.Scan(t.Context(), alice, testStream(1), holdfast.Always), 10*60))
	})
}
