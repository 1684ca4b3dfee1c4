package intake

import (
	"embed"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

//go:embed presets
var presets embed.FS

// Presets are the names of the maps that come with the program.
func Presets() []string {
	entries, err := presets.ReadDir("presets")
	if err != nil { // it is part of the program
		panic(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".json"))
	}
	slices.Sort(out)
	return out
}

// Preset is the text of a map that comes with the program.
func Preset(name string) ([]byte, error) {
	if !slices.Contains(Presets(), name) {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no map of this name: %s", strings.Join(Presets(), ", "))
	}
	return presets.ReadFile("presets/" + name + ".json")
}
