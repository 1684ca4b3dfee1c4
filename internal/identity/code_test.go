package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const (
	exampleDevice = "aaaaaaaaaaaaaaaaaaaaaaaaae"
	exampleSecret = "mfrggzdfmztwq2lknnwg23tpoa"
	examplePin    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

func example(host string) string {
	return "hf1:" + host + "/" + exampleDevice + "/" + exampleSecret + "/" + examplePin
}

func TestCodeSaysWhatItCarries(t *testing.T) {
	for text, address := range map[string]string{
		"hub.example:8444":   "hub.example:8444",
		"192.0.2.7:443":      "192.0.2.7:443",
		"[2001:db8::1]:8444": "[2001:db8::1]:8444",
		"my_hub:1":           "my_hub:1",
	} {
		c, err := ParseCode(example(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if c.Address() != address || c.Device.String() != exampleDevice || c.SecretText() != exampleSecret || c.CA[31] != 0x1f {
			t.Errorf("%s: read as %s %s", text, c.Address(), c.Device)
		}
		if c.Text() != example(text) {
			t.Errorf("%s: written as %s", text, c.Text())
		}
	}
}

func TestWrongCodesAreRefused(t *testing.T) {
	good := example("hub.example:8444")
	for _, s := range []string{
		"", "hf1:", "hf2:" + good[4:], " " + good, good + "\n", good + "/", strings.ToUpper(good),
		strings.Replace(good, "8444", "0", 1),
		strings.Replace(good, "8444", "65536", 1),
		strings.Replace(good, "8444", "08444", 1),
		strings.Replace(good, ":8444", "", 1),
		strings.Replace(good, exampleDevice, "", 1),
		strings.Replace(good, exampleDevice, strings.Repeat("a", 26), 1), // the zero id
		strings.Replace(good, exampleSecret, exampleSecret[:25], 1),
		strings.Replace(good, exampleSecret, exampleSecret[:25]+"b", 1), // unused bits set
		strings.Replace(good, examplePin, examplePin[2:], 1),
		strings.Replace(good, examplePin, strings.ToUpper(examplePin), 1),
		example("[fe80::1%25eth0]:8444"), example("[fe80::1%eth0]:8444"), example("2001:db8::1:8444"), example("[hub.example]:8444"),
		example("hub example:8444"), example("-hub:8444"), example("hub..example:8444"), example("hüb:8444"), example("user@hub:8444"),
		example(strings.Repeat("a.", 200) + "a:8444"),
	} {
		if c, err := ParseCode(s); err == nil {
			t.Errorf("%q was read as %s", s, c.Text())
		} else if holdfast.KindOf(err) != holdfast.Invalid || strings.Contains(err.Error(), exampleSecret[:20]) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestCodeIsNeverPrinted(t *testing.T) {
	c, err := ParseCode(example("hub.example:8444"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{c, &c, []Code{c}} {
			if got := fmt.Sprintf(f, v); strings.Contains(got, exampleSecret) || !strings.Contains(got, "enrolment code") {
				t.Errorf("%s prints %q", f, got)
			}
		}
	}
	if b, err := json.Marshal(c); string(b) != `"enrolment code"` {
		t.Errorf("JSON prints %s, %v", b, err)
	}
}

func TestCodeNamesTheHubAndIsKeptAsHashOnly(t *testing.T) {
	h := build(t)
	d := h.device()
	if d.code.Host != testHosts[0] || d.code.Port != 8444 || d.code.CA != h.CAPin() {
		t.Errorf("the code says %s", d.code.Text())
	}
	for address, want := range map[string]string{
		"hub.example":         "hub.example:8444",
		"hub.example:9000":    "hub.example:9000",
		"2001:db8::1":         "[2001:db8::1]:8444",
		"[2001:db8::1]":       "[2001:db8::1]:8444",
		"[2001:db8::1]:10443": "[2001:db8::1]:10443",
	} {
		c, until, err := h.MakeCode(t.Context(), d.id, d.assignment, CodeOptions{Address: address, Life: time.Hour})
		if err != nil || c.Address() != want || !until.Equal(h.time().Add(time.Hour)) {
			t.Errorf("%s: %s until %s, %v", address, c.Address(), until, err)
		}
		d.code = c
	}
	for _, o := range []CodeOptions{{Address: "hub example"}, {Address: "hub:0"}, {Address: ":8444"}, {Life: -1}, {Life: 401 * 24 * time.Hour}} {
		_, _, err := h.MakeCode(t.Context(), d.id, d.assignment, o)
		wantKind(t, fmt.Sprint(o), err, holdfast.Invalid)
	}
	h.mustNotFind(d.code.SecretText(), string(d.code.Secret[:]))
}

// find returns the files of the data folder that hold a pattern; the log is one.
func (h *house) find(pattern string) (in []string) {
	h.t.Helper()
	if err := h.db.Purge(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	err := filepath.WalkDir(h.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(pattern)) {
			in = append(in, path)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Contains(h.log.String(), pattern) {
		in = append(in, "the log")
	}
	return in
}

func (h *house) mustNotFind(patterns ...string) {
	h.t.Helper()
	for n, p := range patterns {
		if in := h.find(p); in != nil {
			h.t.Errorf("pattern %d is in %v", n, in)
		}
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add(example("hub.example:8444"))
	f.Add(example("[2001:db8::1]:8444"))
	f.Add("hf1:a:1/b/c/d")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if err != nil {
			if holdfast.KindOf(err) != holdfast.Invalid {
				t.Fatal(err)
			}
			return
		}
		if c.Text() != s || c.Port == 0 || c.Device.IsZero() {
			t.Fatalf("%q was read as %q", s, c.Text())
		}
	})
}
