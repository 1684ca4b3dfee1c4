package main

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

// TestYearOf takes the year in which a version was first packaged, not that of a
// later fix of the package.
func TestYearOf(t *testing.T) {
	const log = `thing (1.79.5+ds1-2) unstable; urgency=medium

  * A fix.

 -- A Name <a@example.org>  Sun, 09 Apr 2023 10:57:08 +0000

thing (1.79.5+ds1-1) unstable; urgency=medium

  * New upstream release.

 -- A Name <a@example.org>  Thu, 24 Nov 2022 21:47:27 +0100

thing (1.75.0+ds1-1) unstable; urgency=medium

 -- A Name <a@example.org>  Tue,  2 Mar 2021 17:27:10 +0100
`
	path := filepath.Join(t.TempDir(), "changelog.Debian.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := z.Write([]byte(log)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for upstream, want := range map[string]int{"1.79.5+ds1": 2022, "1.75.0+ds1": 2021, "1.7": 0} {
		if got := yearOf(path, upstream); got != want {
			t.Errorf("%s is of %d, not %d", upstream, got, want)
		}
	}
	if r := (Release{Name: "Thing", Version: "1.79.5", Year: 2022}); r.String() != "Thing 1.79.5 (2022)" {
		t.Errorf("it is called %s", r)
	}
}
