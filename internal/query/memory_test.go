package query_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// underLimit is set in the process that TestHugeQueries starts.
const underLimit = "HOLDFAST_TEST_UNDER_MEMORY_LIMIT"

// TestHugeQueries: a process that may have 400 MiB answers or refuses huge queries,
// many at once, within 512 MiB, and small ones go on beside them.
func TestHugeQueries(t *testing.T) {
	if os.Getenv(underLimit) != "" {
		hugeQueries(t)
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, "-test.run=^TestHugeQueries$", "-test.v")
	c.Env = append(os.Environ(), underLimit+"=1", "GOMEMLIMIT=400MiB")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "peak of ") {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(string(out))
}

func hugeQueries(t *testing.T) {
	h := querytest.Build(t)
	const devices, rows = 20, 16_000
	draw := rand.New(rand.NewPCG(1, 3))
	for i := range devices {
		d := h.Device(custody.DeviceSpec{Label: fmt.Sprint("d", i)})
		var batch []holdfast.Sample
		for k := range rows {
			batch = append(batch, number("x", time.Duration(k*3)*time.Second+time.Duration(i), draw.NormFloat64()))
			if len(batch) == 8000 {
				h.Send(d, batch...)
				batch = batch[:0]
			}
		}
	}
	h.Roll()
	one, err := h.Custody.DeviceByLabel(t.Context(), h.Acme, "d7")
	if err != nil {
		t.Fatal(err)
	}
	huge := ask(h.Admin, query.Selection{Party: h.Acme, Stream: "x"})
	huge.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(24 * time.Hour).UnixNano()}
	huge.Every, huge.By, huge.Aggregates, huge.Fill = time.Second, query.Together, asked, query.FillLinear
	small := ask(h.Admin, query.Selection{Device: one.ID, Stream: "x"})
	small.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(time.Hour).UnixNano()}
	small.Every, small.Aggregates = time.Minute, []query.Aggregate{query.Mean}
	open := func(r query.Request) *query.Result {
		res, err := h.Query.Read(t.Context(), r)
		if kind := holdfast.KindOf(err); err != nil && kind != holdfast.Unavailable {
			t.Error(err)
		}
		return res
	}
	count := func(res *query.Result) (n int) {
		for _, err := range res.Rows {
			if err != nil {
				t.Error("after", n, "windows:", err)
			}
			n++
		}
		return n
	}
	var all sync.WaitGroup
	answered, refused := 0, 0
	for range 8 { // each holds what it took until its rows end
		if res := open(huge); res == nil {
			refused++
		} else {
			answered++
			all.Go(func() {
				if n := count(res); n < devices*rows/40 {
					t.Error(n, "windows")
				}
			})
		}
	}
	all.Go(func() {
		for range 20 {
			if res := open(small); res == nil || count(res) != 60 {
				t.Error("a small one fails")
			}
		}
	})
	all.Wait()
	if answered == 0 || refused == 0 {
		t.Errorf("%d were answered, %d refused", answered, refused)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("THE PEAK OF MEMORY IS NOT KNOWN HERE: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			t.Logf("peak of %d MiB, %d answered, %d refused", kib>>10, answered, refused)
			if err != nil || kib > 512<<10 {
				t.Errorf("peak of %s", text)
			}
		}
	}
}
