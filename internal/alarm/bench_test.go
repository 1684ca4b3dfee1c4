package alarm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// BenchmarkLook is one look of each of 1,000 rules, about 100 devices, each of which
// has sent a reading since the look before.
func BenchmarkLook(b *testing.B) {
	p := build(b)
	var all []custody.Device
	for n := range 100 {
		d := p.Device(custody.DeviceSpec{Label: fmt.Sprint("d", n)})
		p.send(d, "temp", 1)
		all = append(all, d)
	}
	for n := range 1000 {
		p.add(alarm.Spec{Name: fmt.Sprint("rule ", n), Device: all[n%100].ID, Stream: "temp", Webhooks: []holdfast.WebhookID{},
			Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 8}})
	}
	p.pass(time.Second)
	for b.Loop() {
		b.StopTimer()
		p.Later(10 * time.Second)
		for _, d := range all {
			p.send(d, "temp", 1)
		}
		b.StartTimer()
		p.Look(b.Context())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/rule")
}
