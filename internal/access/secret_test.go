package access

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

const (
	exampleID     = "aaaaaaaaaaaaaaaaaaaaaaaaae"
	exampleSecret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	examplePin    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

	goldenToken      = "858be031d3714f0e8d3ec2fd3f6bc26dc2c0e6a22b9b12795e9ead7fee0f6499"
	goldenInvitation = "9bcec7b598076d940016f2c1edd80f292e050819266b065a4df8578e73f2151f"
)

func TestSecretsSayWhatTheyCarry(t *testing.T) {
	for _, text := range []string{
		"hft1." + exampleID + "." + exampleSecret,
		"hft1." + exampleID + "." + exampleSecret + "." + examplePin,
	} {
		s, err := ParseToken(text)
		if err != nil || s.Text() != text || s.ID.String() != exampleID || s.secret[31] != 31 {
			t.Errorf("%s was read as %s, %v", text, s.Text(), err)
		}
		if _, err := ParseInvitation(text); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("a token was read as an invitation: %v", err)
		}
		s, err = ParseInvitation("hfi1" + text[4:])
		if err != nil {
			t.Error(err)
		}
		for _, f := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if got := fmt.Sprintf(f, s); got != "secret" {
				t.Errorf("%s prints %s", f, got)
			}
		}
		if b, err := json.Marshal(s); string(b) != `"secret"` {
			t.Errorf("JSON prints %s, %v", b, err)
		}
	}
}

func TestTheSamePartsHashDifferentlyAsTokenAndInvitation(t *testing.T) {
	a, err := ParseToken("hft1." + exampleID + "." + exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseInvitation("hfi1." + exampleID + "." + exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	if a.hash() == b.hash() {
		t.Error("an invitation's secret would do as a token's")
	}
}

// What the catalog keeps of a secret. The sums are those of sha256sum.
func TestGoldenHashes(t *testing.T) {
	for text, want := range map[string]string{
		"hft1." + exampleID + "." + exampleSecret:                    goldenToken,
		"hft1." + exampleID + "." + exampleSecret + "." + examplePin: goldenToken,
		"hfi1." + exampleID + "." + exampleSecret:                    goldenInvitation,
	} {
		s, err := parseSecret(text[:4], text)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", s.hash()); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestWrongSecretsAreRefused(t *testing.T) {
	good := "hft1." + exampleID + "." + exampleSecret + "." + examplePin
	for _, s := range []string{
		"", "hft1", "hft1..", good + ".", good + "=", " " + good, good + "\n", strings.ToUpper(good), "hft2" + good[4:],
		strings.Replace(good, exampleID, strings.Repeat("a", 26), 1),
		strings.Replace(good, exampleSecret, exampleSecret[1:], 1),
		strings.Replace(good, exampleSecret, exampleSecret[:42]+"9", 1), // unused bits set
		strings.Replace(good, examplePin, "", 1),
		strings.Replace(good, examplePin, strings.ToUpper(examplePin), 1),
		good + strings.Repeat("0", 300),
	} {
		if _, err := ParseToken(s); holdfast.KindOf(err) != holdfast.Invalid || strings.Contains(fmt.Sprint(err), exampleSecret[:20]) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("hft1." + exampleID + "." + exampleSecret)
	f.Add("hfi1." + exampleID + "." + exampleSecret + "." + examplePin)
	f.Add("hft1.a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (Secret, error){ParseToken, ParseInvitation} {
			s, err := parse(text)
			if err != nil {
				if holdfast.KindOf(err) != holdfast.Invalid {
					t.Fatal(err)
				}
				continue
			}
			if s.Text() != text || s.ID.IsZero() {
				t.Fatalf("%q was read as %q", text, s.Text())
			}
		}
	})
}
