package bundle

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// maxManifest bounds a manifest that is read: 64 MiB is half a million files.
const maxManifest = 64 << 20

// AppendManifest appends a manifest: a line for each file, by name. It is what
// sha256sum -c reads.
func AppendManifest(dst []byte, files []File) []byte {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range sorted {
		dst = append(hex.AppendEncode(dst, f.SHA256[:]), "  "...)
		dst = append(append(dst, f.Name...), '\n')
	}
	return dst
}

// ParseManifest reads a manifest. A file that is named twice, or whose name leads
// out of the bag, is refused.
func ParseManifest(r io.Reader) ([]File, error) {
	var files []File
	seen := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(r, maxManifest))
	for n := 1; lines.Scan(); n++ {
		sum, name, ok := strings.Cut(lines.Text(), " ")
		name = strings.TrimPrefix(strings.TrimLeft(name, " "), "*") // RFC 8493 and sha256sum allow several spaces and a mark for binary
		var f File
		f.Name = name
		switch {
		case !ok || len(sum) != hex.EncodedLen(len(f.SHA256)):
			return nil, invalid("line %d is not a hash and a name", n)
		case !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\%"):
			return nil, invalid("line %d names a file that a bundle does not have", n)
		case seen[name]:
			return nil, invalid("line %d names a file again", n)
		}
		if _, err := hex.Decode(f.SHA256[:], []byte(sum)); err != nil {
			return nil, invalid("line %d is not a hash and a name", n)
		}
		seen[name] = true
		files = append(files, f)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return files, nil
}

// Info is the content of bag-info.txt: labels and values, in order.
type Info []Label

// Label is a line of bag-info.txt.
type Label struct{ Name, Value string }

// The labels that this form adds to those of RFC 8493.
const (
	LabelVersion  = "Holdfast-Bundle-Version"
	LabelID       = "Holdfast-Bundle-Id"
	LabelOwner    = "Holdfast-Owner"
	LabelVerifier = "Holdfast-Verifier-Key"
	LabelRows     = "Holdfast-Rows"
	LabelWithheld = "Holdfast-Streams-Withheld"
)

// Append appends the lines. A line feed in a value becomes a space.
func (i Info) Append(dst []byte) []byte {
	one := strings.NewReplacer("\r", " ", "\n", " ")
	for _, l := range i {
		dst = fmt.Appendf(dst, "%s: %s\n", l.Name, one.Replace(l.Value))
	}
	return dst
}

// Get returns the first value of a label, "" if there is none.
func (i Info) Get(name string) string {
	for _, l := range i {
		if strings.EqualFold(l.Name, name) {
			return l.Value
		}
	}
	return ""
}

// ParseInfo reads bag-info.txt. A line that begins with space goes on with the
// one before.
func ParseInfo(text []byte) (Info, error) {
	var info Info
	for line := range bytes.Lines(text) {
		s := strings.TrimRight(string(line), "\r\n")
		if s == "" {
			continue
		}
		if (s[0] == ' ' || s[0] == '\t') && len(info) > 0 {
			info[len(info)-1].Value += " " + strings.TrimSpace(s)
			continue
		}
		name, value, ok := strings.Cut(s, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, invalid("%s has a line without a label", InfoName)
		}
		info = append(info, Label{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	return info, nil
}
