package vaultbench

import (
	"os"
	"testing"
)

// A small keyring, so that the measurement itself stays whole; with
// HOLDFAST_LONG=1 a million owners, which must keep what performance.md says.
func TestRun(t *testing.T) {
	owners := 3000
	if os.Getenv("HOLDFAST_LONG") != "" {
		owners = 1_000_000
	}
	f, err := Run(t.Context(), t.TempDir(), owners, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f)
	if f.One.Written == 0 || f.One.Written > 200_000 {
		t.Errorf("to destroy one owner's keys wrote %d bytes", f.One.Written)
	}
	if f.Rewrap.Written < int64(owners-101)*96 {
		t.Errorf("all pages anew are %d bytes", f.Rewrap.Written)
	}
}
