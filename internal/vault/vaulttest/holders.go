package vaulttest

import (
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault/conform"
)

// Holders tries a holder: all steps of `holdfast holder test`, once with it opened
// as seldom as can be and once anew for each call, as after as many power cuts.
// subject makes one that has never been used.
func Holders(t *testing.T, subject func(t *testing.T) conform.Subject) {
	for name, always := range map[string]bool{"open once": false, "a power cut before each call": true} {
		t.Run(name, func(t *testing.T) {
			s := subject(t)
			s.Always = always
			conform.Run(t.Context(), s, func(r conform.Result) {
				if !r.OK {
					t.Errorf("%s: %s (%s)", r.Step, r.Error, r.Mend)
				} else {
					t.Logf("%s: ok, %s", r.Step, r.Took)
				}
			})
		})
	}
}
