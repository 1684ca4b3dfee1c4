package custody

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

func (h *hub) units(file string, d UnitDefaults) (UnitReport, error) {
	return h.AddUnits(h.t.Context(), h.admin, strings.NewReader(file), d)
}

func serials(r UnitReport) (s []string) {
	for _, u := range r.Added {
		s = append(s, u.Serial)
	}
	return s
}

func TestUnitsComeFromAFileOnce(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	h.profile(profileOf(okP))
	file := "\ufeffserial,label,profile,owner\r\nS1,pump,a,Ada\r\nS2,,,\r\nS3,\"left, rear\",,\r\n"
	r, err := h.units(file, UnitDefaults{Unclaimed: true, Profile: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"S1", "S2", "S3"}, serials(r)); diff != "" || len(r.Existing) != 0 {
		t.Error(diff, r.Existing)
	}
	pump := r.Added[0]
	if pump.Device.Owner != ada || pump.Device.State != Active || pump.ClaimCode != "" || pump.Device.Profile != "a" {
		t.Errorf("owned unit %+v", pump)
	}
	second := r.Added[1]
	if second.Device.Label != "S2" || second.Device.State != Unclaimed || second.ClaimCode == "" {
		t.Errorf("unclaimed unit %+v", second)
	}
	if d, err := h.Claim(t.Context(), h.admin, ada, second.ClaimCode); err != nil || d.ID != second.Device.ID {
		t.Errorf("claim %+v, %v", d, err)
	}

	again, err := h.units(file+"S4,,,\r\n", UnitDefaults{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"S4"}, serials(again)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"S1", "S2", "S3"}, again.Existing); diff != "" {
		t.Error(diff)
	}
	if u, err := h.Unit(t.Context(), pump.Device.Unit); err != nil || u.Serial != "S1" {
		t.Errorf("unit %+v, %v", u, err)
	}
}

func TestUnitFileIsAllOrNothing(t *testing.T) {
	h := newHub(t)
	h.party("Ada")
	h.device(DeviceSpec{Label: "taken"})
	for file, reason := range map[string]string{
		"":                                    "line 1: the file is empty",
		"label\npump\n":                       "line 1: there is no column serial",
		"serial,colour\nS1,red\n":             "line 1: column 2 is none of",
		"serial,serial\nS1,S1\n":              "line 1: column serial stands there twice",
		"serial,label\nS1,pump\nS2\n":         "line 3: wrong number of fields",
		"serial\nS1\n\"S2\n":                  "line 3",
		"serial\nS1\nS2\nS1\n":                "line 4: the serial stands in line 2",
		"serial\nS1\n \n":                     "line 3",
		"serial,label\nS1,pump\nS2,pump\n":    "line 3: the label stands in line 2",
		"serial,label\nS1,pump\nS2,taken\n":   "line 3: the owner has a device of this label",
		"serial,label\nS1,pump\nS2,a+b\n":     "line 3: the name of a device must not contain",
		"serial,owner\nS1,Ada\nS2,Bob\n":      "line 3: there is no such party",
		"serial,profile\nS1,\nS2,band\n":      "line 3: there is no such profile",
		"serial,label\nS1,\"two\nlines\"\n":   "line 2: the name of a device must not contain control",
		"serial\n" + strings.Repeat("x", 200): "line 2: the name of a serial has at most",
	} {
		_, err := h.units(file, UnitDefaults{})
		if err == nil || !strings.Contains(err.Error(), reason) || holdfast.KindOf(err) == holdfast.Internal {
			t.Errorf("%.40q: %v (%v), want %q", file, err, holdfast.KindOf(err), reason)
		}
	}
	all, err := h.AllDevices(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("refused files left %d devices, %v", len(all)-1, err)
	}
	if r, err := h.units("serial\n", UnitDefaults{}); err != nil || len(r.Added) != 0 {
		t.Errorf("a file without units: %+v, %v", r, err)
	}
}

func TestUnitIsInOnePairOfHands(t *testing.T) {
	h := newHub(t)
	ada := h.party("Ada")
	first := h.device(DeviceSpec{Label: "car", Serial: "VIN1"})
	_, err := h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "her car", Owner: ada, Serial: "VIN1"})
	wants(t, err, holdfast.Conflict, "close that one first")
	if err := h.CloseAssignment(t.Context(), h.admin, first.Assignment); err != nil {
		t.Fatal(err)
	}
	second := h.device(DeviceSpec{Label: "her car", Owner: ada, Serial: "VIN1"})
	if second.Unit != first.Unit || second.ID == first.ID || second.Assignment == first.Assignment {
		t.Errorf("a change of owner: %+v, %+v", first, second)
	}
}

func FuzzReadUnits(f *testing.F) {
	f.Add("serial,label,profile,owner\nS1,pump,a,Ada\n")
	f.Add("\ufeffserial\r\n\"S\"\"1\"\r\n")
	f.Fuzz(func(t *testing.T, file string) {
		rows, err := readUnits(strings.NewReader(file))
		if err != nil {
			if k := holdfast.KindOf(err); k == holdfast.Internal {
				t.Errorf("a file's fault is called ours: %v", err)
			}
			return
		}
		for _, r := range rows {
			if holdfast.CheckName("serial", r.serial) != nil || r.line < 2 {
				t.Errorf("row %+v", r)
			}
		}
	})
}
