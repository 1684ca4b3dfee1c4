package grant

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// The golden file holds what the sealed columns contain, one line per table
// (docs/format/grant.md). What an older build wrote must be read as it was meant.
func TestGolden(t *testing.T) {
	infos := []struct {
		table string
		info  any
		read  func([]byte) (any, error)
	}{
		{"purpose", purposeInfo{Name: "care", IRI: "https://w3id.org/dpv#ServiceProvision", LegalBasis: "contract",
			BasisIRI: "https://w3id.org/dpv/legal/eu/gdpr#A6-1-b", Parent: "service", Controller: holdfast.PartyID{3}, Categories: []string{"https://w3id.org/dpv/pd#Health"},
			RetentionDays: 30, Text: "Care.", Added: 1, Ended: 2},
			reader[purposeInfo]},
		{"data_grant", grantInfo{Recipient: holdfast.PartyID{2}, Purpose: "care", AllDevices: true, Devices: []holdfast.DeviceID{{1}}, Assignments: []holdfast.AssignmentID{{6}}, AllStreams: true, Streams: []string{"pulse"},
			From: -1, To: 2, Until: 3, Made: 1, Ended: 2, By: holdfast.CredentialID{2},
			Categories: []string{"https://w3id.org/dpv/pd#Health"}, Supersedes: holdfast.GrantID{5}, Obligations: &policy.Obligations{Every: 60_000_000_000, MinGroup: 5}}, reader[grantInfo]},
		{"disclosure", disclosureInfo{Reader: holdfast.CredentialID{2}, Recipient: holdfast.PartyID{3}, Purpose: "care", Grant: holdfast.GrantID{4},
			Streams: []holdfast.StreamID{{5}}, Opened: 1, Last: 2, Reads: 3, Rows: 4, First: -1, Final: 5, Role: "program", Permission: holdfast.PermissionID{6},
			Reason: policy.ByGrant, Policies: []string{"p"}, Obligations: policy.Obligations{Delay: 7}}, reader[disclosureInfo]},
		{"disclosure_tally", tallyInfo{Recipient: holdfast.PartyID{3}, Purpose: "care", Grant: holdfast.GrantID{4}, Permission: holdfast.PermissionID{6}, Role: "program",
			Readers: []holdfast.CredentialID{{2}}, Streams: []holdfast.StreamID{{5}}, Obligations: policy.Obligations{Delay: 7}, Disclosures: 2, Open: 1,
			Reads: 3, Rows: 4, Opened: 1, Last: 2, First: -1, Final: 5}, reader[tallyInfo]},
		{"hold", holdInfo{Kind: Objection, Purpose: "care", Assignments: []holdfast.AssignmentID{{6}}, Streams: []string{"pulse"}, Reason: "A letter.", Secret: true,
			OwnWord: true, Set: 1, Lifts: 2, Ended: 3, By: holdfast.CredentialID{2}}, reader[holdInfo]},
		{"device_group", groupInfo{Name: "house", Devices: []byte{1, 2}, Every: "1d", Zone: "UTC", Made: 1, Ended: 2, By: holdfast.CredentialID{2}}, reader[groupInfo]},
		{"group_answer", answeredInfo{Groups: map[holdfast.GroupID]map[string]*answeredPart{{7}: {"number kWh": {Memberships: [][]byte{{1}, {2}}, Cells: []byte{3}, Floor: 4}}}},
			reader[answeredInfo]},
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
