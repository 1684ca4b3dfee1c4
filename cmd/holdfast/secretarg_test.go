package main

import (
	"strings"
	"testing"
)

// TestCodesFromStandardInput: a code need not stand on the command line, where
// other users of the machine can read it.
func TestCodesFromStandardInput(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	for in, want := range map[string]string{
		"https://hub.example:8443/v1/invitations#hfi1.id.secret." + pin + "\nmore\n": "https://hub.example:8443",
		"  hfi1.id.secret." + pin: "https://other.example:8443",
	} {
		c := &partyRedeemCmd{Invitation: "-"}
		if !strings.Contains(in, "#") {
			c.Hub = want
		}
		address, code, _, err := c.read(&app{stdin: strings.NewReader(in)})
		if err != nil || address != want || code != "hfi1.id.secret."+pin {
			t.Errorf("%q: %q %q %v", in, address, code, err)
		}
	}
}
