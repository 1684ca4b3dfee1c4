package main

import (
	"encoding/json"
	"testing"
)

func TestPlainValues(t *testing.T) {
	for in, want := range map[string]string{
		`21.50`: "21.50", `9007199254740993`: "9007199254740993", `"warming up"`: "warming up", `"NaN"`: "NaN", `true`: "true",
		`{"latitude":52.5,"longitude":13.4}`:               "52.5 13.4",
		`{"latitude":52.5,"longitude":13.4,"altitude":34}`: "52.5 13.4 34",
		`{"latitude":0,"longitude":0,"altitude":0}`:        "0 0 0",
	} {
		if got := plain(json.RawMessage(in)); got != want {
			t.Errorf("%s is shown as %q, want %q", in, got, want)
		}
	}
}
