package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/custody"
)

// BenchmarkGateway sends line protocol for a thousand declared children over two
// connections, 5,000 lines a request: the whole way, with the rolls that it causes.
// cpu-ns/reading has the client in it, which sends bodies made beforehand.
func BenchmarkGateway(b *testing.B) {
	const children, lines = 1000, 5000
	h := newHouse(b)
	at, end := h.serve()
	defer end()
	gateway := h.enrolled(h.admin().Party, "gateway")
	for i := range children {
		if _, err := h.custody.AddDevice(b.Context(), h.admin().Credential, custody.DeviceSpec{Label: fmt.Sprint("c", i), Gateway: gateway.Device}); err != nil {
			b.Fatal(err)
		}
	}
	client := gateway.http(h.t)
	url := at.Device + "/write"
	start := time.Now().Add(-time.Hour).UnixMilli()
	body := func(n int) []byte {
		var out []byte
		for i := range lines {
			k := n*lines + i
			out = append(out, "climate,device=c"...)
			out = strconv.AppendInt(out, int64(k%children), 10)
			out = append(out, " temperature="...)
			out = strconv.AppendFloat(out, float64(200+k*7%50)/10, 'f', 1, 64)
			out = append(out, ' ')
			out = strconv.AppendInt(out, (start+int64(k/children)*1000+int64(k%7-3))*1e6, 10)
			out = append(out, '\n')
		}
		return out
	}
	send := func(data []byte) error {
		status, _, text, err := post(client, url, "", bytes.NewReader(data))
		if err == nil && status != http.StatusNoContent {
			err = fmt.Errorf("%d %s", status, text)
		}
		return err
	}
	if err := send(body(0)); err != nil {
		b.Fatal(err)
	}
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = body(i + 1)
	}
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range 2 {
		wg.Go(func() {
			for i := c; i < len(bodies); i += 2 {
				if err := send(bodies[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := h.series.Roll(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := func(u *syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	b.ReportMetric(float64(b.N*lines)/b.Elapsed().Seconds(), "readings/s")
	b.ReportMetric(float64(cpu(&after)-cpu(&before))/float64(b.N*lines), "cpu-ns/reading")
}
