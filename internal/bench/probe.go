package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Probe is how fast the bare disk makes 4 KiB durable with fdatasync.
type Probe struct {
	AppendP50    time.Duration `json:"append_p50_ns"`
	AppendP99    time.Duration `json:"append_p99_ns"`
	OverwriteP50 time.Duration `json:"overwrite_p50_ns"` // in a file that has its blocks already
	OverwriteP99 time.Duration `json:"overwrite_p99_ns"`
}

const (
	probeWrites = 200
	probeSize   = 4 << 10
	probeTime   = 10 * time.Second // of a disk that is very slow
)

// ProbeDisk writes in a file of its own in dir.
func ProbeDisk(ctx context.Context, dir string) (p Probe, err error) {
	path := filepath.Join(dir, "probe")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return p, fmt.Errorf("probe disk: %w", err)
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, probeSize)
	for i := range block {
		block[i] = byte(i * 7)
	}
	writes := func() (times []time.Duration, err error) {
		began := time.Now()
		for i := range probeWrites {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if i > 20 && time.Since(began) > probeTime {
				break
			}
			t := time.Now()
			if _, err := f.WriteAt(block, int64(i)*probeSize); err != nil {
				return nil, fmt.Errorf("probe disk: %w", err)
			}
			if err := syncData(f); err != nil {
				return nil, fmt.Errorf("probe disk: %w", err)
			}
			times = append(times, time.Since(t))
		}
		slices.Sort(times)
		return times, nil
	}
	first, err := writes()
	if err != nil {
		return p, err
	}
	second, err := writes()
	if err != nil {
		return p, err
	}
	p.AppendP50, p.AppendP99 = Quantile(first, 0.5), Quantile(first, 0.99)
	p.OverwriteP50, p.OverwriteP99 = Quantile(second, 0.5), Quantile(second, 0.99)
	return p, nil
}

// Quantile is the value below which a share q of sorted times lies.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Differs reports whether the medians of two probes are more than threefold apart.
func (p Probe) Differs(q Probe) bool {
	apart := func(a, b time.Duration) bool { return a > 3*b || b > 3*a }
	return apart(p.AppendP50, q.AppendP50) || apart(p.OverwriteP50, q.OverwriteP50)
}

func (p Probe) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("append %s (p99 %s), overwrite %s (p99 %s)",
		round(p.AppendP50), round(p.AppendP99), round(p.OverwriteP50), round(p.OverwriteP99))
}
