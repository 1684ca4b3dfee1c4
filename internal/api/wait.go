package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// seconds is how long a caller waits, if he said so. It is a type of its own because
// huma takes a 0 that somebody gave for nothing given, and puts a default there.
type seconds struct {
	N     int
	given bool
}

// Schema is how the API's description has it.
func (seconds) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, 60.0
	s := &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &least, Maximum: &most, Description: "How many seconds to wait for the end; left out: 30."}
	s.PrecomputeMessages()
	return s
}

// Receiver is what the parameter is read into.
func (s *seconds) Receiver() reflect.Value { return reflect.ValueOf(&s.N).Elem() }

// OnParamSet notes that the parameter was given.
func (s *seconds) OnParamSet(given bool, _ any) { s.given = given }

// or is what was given, or else the default.
func (s *seconds) or(otherwise int) int {
	if s.given {
		return s.N
	}
	return otherwise
}

// waitForErasure is how many seconds a request waits for the end of an erasure, if it
// does not say.
const waitForErasure = 30
