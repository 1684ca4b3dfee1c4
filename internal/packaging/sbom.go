package packaging

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// Product is what a bill of materials is of.
type Product struct {
	Name, Version, Commit string
	Platform              string // linux/amd64
	Time                  time.Time
}

// WriteSBOM writes the bill of materials of a binary (CycloneDX 1.6, JSON): the same
// bytes for the same binary.
func WriteSBOM(w io.Writer, p Product, binary string, modules []Module, goVersion string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("write bill of materials: %w", err)
	}
	sum := sha256.Sum256(content)
	root := "pkg:golang/github.com/holdfast-iot/holdfast@v" + p.Version
	bom := cyclonedx.NewBOM()
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID made of a hash: version 8
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	sum = sha256.Sum256(content)
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: p.Time.UTC().Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: p.Name, Version: p.Version, PackageURL: root,
			Hashes:   &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
			Licenses: licences("Apache-2.0"),
			Properties: &[]cyclonedx.Property{
				{Name: "holdfast:commit", Value: p.Commit}, {Name: "holdfast:platform", Value: p.Platform},
			},
		},
	}
	std := "pkg:golang/std@" + strings.TrimPrefix(goVersion, "go")
	components := []cyclonedx.Component{{
		BOMRef: std, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: goVersion, PackageURL: std, Licenses: licences("BSD-3-Clause"),
	}}
	refs := []string{std}
	for _, m := range modules {
		url := "pkg:golang/" + m.Path + "@" + m.Version
		c := cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url, Licenses: licences(m.Licence)}
		if len(m.Copyrights) > 0 {
			c.Copyright = strings.Join(m.Copyrights, "\n")
		}
		if m.Sum != "" {
			c.Properties = &[]cyclonedx.Property{{Name: "golang:sum", Value: m.Sum}}
		}
		components, refs = append(components, c), append(refs, url)
	}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: root, Dependencies: &refs}}
	e := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON)
	e.SetPretty(true)
	return e.EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}

func licences(expression string) *cyclonedx.Licenses {
	if strings.Contains(expression, " ") {
		return &cyclonedx.Licenses{{Expression: expression}}
	}
	return &cyclonedx.Licenses{{License: &cyclonedx.License{ID: expression}}}
}
