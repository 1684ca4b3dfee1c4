package main

import (
	"math"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

func TestParseValue(t *testing.T) {
	n, text := holdfast.NumberValue, holdfast.TextValue
	for in, want := range map[string]holdfast.Value{
		"21.5": n(21.5), "-0": n(math.Copysign(0, -1)), "0": n(0), "1e3": n(1000), "1E-3": n(0.001), "9007199254740992": n(1 << 53),
		"9007199254740993": holdfast.IntegerValue(1<<53 + 1), "-9223372036854775807": holdfast.IntegerValue(-math.MaxInt64),
		"9223372036854775807": holdfast.IntegerValue(math.MaxInt64), "9223372036854775808": n(1 << 63),
		"true": holdfast.BooleanValue(true), "false": holdfast.BooleanValue(false), "True": text("True"),
		"": text(""), "on": text("on"), "1,5": text("1,5"), "007": text("007"), "+1": text("+1"), "0x10": text("0x10"), "1e999": text("1e999"),
		"NaN": text("NaN"), "inf": text("inf"), "1_000": text("1_000"), " 1": text(" 1"), ".5": text(".5"), "5.": text("5."),
	} {
		if got, _ := parseValue(in); !got.Same(want) {
			t.Errorf("%q is %v, want %v", in, got, want)
		}
	}
}

func FuzzParseValue(f *testing.F) {
	f.Add("1e5")
	f.Fuzz(func(t *testing.T, s string) {
		if v, literal := parseValue(s); literal != (v.Type() == holdfast.Number || v.Type() == holdfast.Integer) || v.Type() == holdfast.Text && v.Text() != s {
			t.Errorf("%q: %v %v", s, v, literal)
		}
	})
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1e9, "1772366400.000000001": 1772366400_000000001, "-1.5": -1_500_000_000, "-0.000000001": -1,
		"9223372036.854775807": math.MaxInt64, "2026-03-01T12:00:00.25Z": 1772366400_250000000, "1969-12-31T23:59:59+00:00": -1e9,
		"2026-03-01T13:00:00+01:00": 1772366400_000000000,
	} {
		if got, timed, err := parseTime(in); got != want || !timed || err != nil {
			t.Errorf("%q is %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"now", ".5", "9223372036.854775808", "1.0000000001", "1e9", "2026-03-01", "3000-01-01T00:00:00Z", "1600-01-01T00:00:00Z", "--1", "1.-1", "1. 5"} {
		if _, _, err := parseTime(in); err == nil {
			t.Errorf("%q was taken for a time", in)
		}
	}
	if _, timed, err := parseTime(""); timed || err != nil {
		t.Error("no time at all")
	}
}

func TestSamples(t *testing.T) {
	c := sendCmd{Readings: []string{"a=1", "b/c==", "d="}, Text: true}
	got, err := c.samples()
	if err != nil || len(got) != 3 || got[1].Stream != "b/c" || got[1].Value.Text() != "=" || got[2].Value.Type() != holdfast.Text || got[0].Timed {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"a", "=1", "a+=1", "/a=1", "a=\xff"} {
		if _, err := (&sendCmd{Readings: []string{bad}}).samples(); holdfast.KindOf(err) != holdfast.Invalid || err == nil {
			t.Errorf("%q was taken: %v", bad, err)
		}
	}
}
