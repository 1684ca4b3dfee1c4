package custody

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

var update = flag.Bool("update", false, "write the golden files")

// The golden file holds what the sealed columns contain, one line per table
// (docs/format/custody.md). What an older build wrote must be read as it was
// meant.
func TestGolden(t *testing.T) {
	infos := []struct {
		table string
		info  any
		read  func([]byte) (any, error)
	}{
		{"party", partyInfo{Name: "Ada", Kind: Person, Added: 1}, reader[partyInfo]},
		{"unit", unitInfo{Serial: "S1", Added: 1}, reader[unitInfo]},
		{"device", deviceInfo{Label: "band", Profile: "wearable", ProfileVersion: 2, Child: "left", Added: 1}, reader[deviceInfo]},
		{"assignment", assignmentInfo{From: 1, To: 2, Recorded: 1}, reader[assignmentInfo]},
		{"assignment", assignmentInfo{From: 1, To: 2, Basis: Employ, Period: true, Schedule: &scheduleInfo{Hours: "Mo-Fr 08:00-17:00", Zone: "Europe/Berlin"},
			EraseAfter: 30, Recorded: 3, Superseded: 4}, reader[assignmentInfo]},
		{"period", periodInfo{From: 1, To: 2, Schedule: &scheduleInfo{Hours: "Mo-Fr 08:00-17:00", Zone: "Europe/Berlin"}}, reader[periodInfo]},
		{"stream", streamInfo{Name: "pulse", Type: "integer", Unit: "beat/min", Category: "https://w3id.org/dpv/pd#PhysicalHealth", Sensitivity: SensitivitySpecial,
			Purposes: []holdfast.Purpose{"care"}, RetentionDays: 30, MinimumTier: 2, Open: true}, reader[streamInfo]},
		{"membership", membershipInfo{Kind: Guardian, From: 1, To: 2, OfferedBy: holdfast.PartyID{1}, EndedBy: holdfast.PartyID{2}, Accepted: true}, reader[membershipInfo]},
		{"joint_erasure", jointInfo{Device: holdfast.DeviceID{1}, Stream: "pulse", From: 1, To: 2, Asked: 3, By: holdfast.PartyID{2}}, reader[jointInfo]},
		{"transfer", transferInfo{Fate: Export, Children: true, Profile: "wearable", Offered: 1, Until: 2, Ended: 3}, reader[transferInfo]},
		{"release_notice", noticeInfo{Reason: "left behind", Asked: 1, Until: 2, Ended: 3, By: holdfast.CredentialID{1}}, reader[noticeInfo]},
		{"profile", Profile{Name: "wearable", Version: 2, Tags: map[string]TagRule{"cpu": TagPrefix, "host": TagIgnore}, Streams: []ProfileStream{
			{Name: "pulse", Type: "integer", Unit: "beat/min", Category: "https://w3id.org/dpv/pd#PhysicalHealth", Purposes: []holdfast.Purpose{"care"},
				RetentionDays: 30, Sensitivity: SensitivitySpecial, MinimumTier: 2},
		}}, reader[Profile]},
	}
	file := filepath.Join("testdata", "info.ndjson")
	var got []byte
	for _, i := range infos {
		b, err := json.Marshal(i.info)
		if err != nil {
			t.Fatal(err)
		}
		got = append(append(got, b...), '\n')
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
	lines := bytes.Split(want, []byte{'\n'})
	for n, i := range infos {
		if read, err := i.read(lines[n]); err != nil || !cmp.Equal(read, i.info) {
			t.Errorf("%s reads as %+v, %v", i.table, read, err)
		}
	}
}

func reader[T any](b []byte) (any, error) {
	var v T
	err := json.Unmarshal(b, &v)
	return v, err
}
