package journal_test

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/journal/journaltest"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]journal.Options{
		"as in production": {},
		"many segments":    {SegmentSize: 128 << 10, QueueBytes: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, func(t *testing.T) journaltest.Open {
				dir := filepath.Join(t.TempDir(), "journal")
				return func() (journal.Log, error) { return journal.OpenFile(dir, o) }
			})
		})
	}
}
