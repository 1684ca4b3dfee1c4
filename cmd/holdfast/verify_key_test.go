package main

import (
	"strings"
	"testing"
)

// A key with a line end behind it is refused, as by verifiers that take base64 as it is
// written.
func TestAKeyIsTakenAsItIsWritten(t *testing.T) {
	key := "holdfast/a+1a2b3c4d+AbC\n"
	for _, c := range []verifyCmd{{Path: t.TempDir(), Key: &key}, {Path: t.TempDir(), Witness: []string{key}}} {
		if err := c.Run(&app{}); err == nil || !strings.Contains(err.Error(), "a line end in it") {
			t.Errorf("a key with a line end behind it: %v", err)
		}
	}
}
