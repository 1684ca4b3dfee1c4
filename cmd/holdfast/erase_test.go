package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestOnlyYesErases(t *testing.T) {
	for answer, want := range map[string]bool{"yes\n": true, " yes \n": true, "y\n": false, "YES\n": false, "no\n": false, "\n": false} {
		var asked bytes.Buffer
		ok, err := new(eraseCmd).confirmed(&app{stdin: strings.NewReader(answer), stderr: &asked})
		if ok != want || err != nil || !strings.Contains(asked.String(), "can't be undone") {
			t.Errorf("%q: %v, %v", answer, ok, err)
		}
	}
	if ok, err := new(eraseCmd).confirmed(&app{stdin: strings.NewReader(""), stderr: new(bytes.Buffer)}); ok || err == nil {
		t.Errorf("no answer: %v, %v", ok, err)
	}
	if isTerminal(strings.NewReader("")) {
		t.Error("a string is no terminal")
	}
}

func TestFolderForADevice(t *testing.T) {
	for label, want := range map[string]string{"pump-1": "pump-1", "a b; rm -rf": "a-b--rm--rf", "../x": "x", "'$(id)'": "id", "ü": "device"} {
		if got := folderFor(label); strings.Trim(got, "-") != want {
			t.Errorf("%q makes %q, want %q", label, got, want)
		}
	}
}
