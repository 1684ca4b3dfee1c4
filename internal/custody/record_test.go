package custody

import (
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
)

// TestRecordSaysWhoseTheDataAre: that somebody other than its owner will read a
// device's data stands on the owner's record from the start.
func TestRecordSaysWhoseTheDataAre(t *testing.T) {
	h := newHub(t)
	ada, bob := h.party("Ada"), h.party("Bob")
	h.device(DeviceSpec{Label: "plain", Owner: ada})
	h.device(DeviceSpec{Label: "van", Owner: ada, Subject: bob})
	var added []string
	for _, e := range h.diary.entries {
		if e.owner == vault.OfParty(ada) && e.kind == "device added" {
			added = append(added, e.text)
		}
	}
	if len(added) != 2 || strings.Contains(added[0], "subject") || !strings.Contains(added[1], `"subject":"`+bob.String()+`"`) {
		t.Errorf("on record: %s", added)
	}
}
