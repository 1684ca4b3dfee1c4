package vault

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// BenchmarkAddOwnersCopied is what a device that is added waits for: its owner key is
// in the keyring and in every copy that is in step, synced, before it is used. many are
// devices that are added together.
func BenchmarkAddOwnersCopied(b *testing.B) {
	for copies := range 3 {
		for _, many := range []int{1, 100} {
			b.Run(fmt.Sprintf("%d copies, %d together", copies, many), func(b *testing.B) {
				dir := b.TempDir()
				var o Options
				for _, name := range []string{"keyring", "one", "two"}[:1+copies] {
					if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
						b.Fatal(err)
					}
					if name != "keyring" {
						o.Copies = append(o.Copies, Copy{Name: name, Place: Dir(filepath.Join(dir, name))})
					}
				}
				db, err := catalog.Open(b.Context(), dir, catalog.Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				holder, err := CreateFileHolder(filepath.Join(dir, "root.key"), nil)
				if err != nil {
					b.Fatal(err)
				}
				v, err := Create(b.Context(), db, Dir(filepath.Join(dir, "keyring")), []Holder{holder}, o)
				if err != nil {
					b.Fatal(err)
				}
				if err := v.TendCopies(b.Context()); err != nil {
					b.Fatal(err)
				}
				owners := make([]Owner, many)
				b.ReportAllocs()
				for b.Loop() {
					for i := range owners {
						owners[i] = OfAssignment(holdfast.NewID[holdfast.AssignmentID]())
					}
					if err := v.AddOwners(b.Context(), owners); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*many), "us/owner")
				for _, c := range v.Copies() {
					if c.Late {
						b.Fatalf("copy %s is late: %s", c.Name, c.Reason)
					}
				}
			})
		}
	}
}
