package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
)

// Report is what Verify found. The bundle is whole and unchanged if Faults is
// empty; that it is by the hub it names follows from Signer alone.
type Report struct {
	ID       string   `json:"id"`
	Owner    string   `json:"owner"`
	Signer   string   `json:"signer"`  // verifier key of the signature that holds; "" if none does
	Trusted  bool     `json:"trusted"` // Signer is the key that the caller gave
	Files    int      `json:"files"`   // checked
	Bytes    int64    `json:"bytes"`
	Streams  int      `json:"streams"`
	Rows     uint64   `json:"rows"`
	Entries  uint64   `json:"entries"` // of the ledger about the owner
	Withheld string   `json:"withheld,omitempty"`
	Faults   []string `json:"faults,omitempty"` // each begins with the name of a file
}

// IsBundle reports whether a folder looks like a bundle, whole or not.
func IsBundle(fsys fs.FS) bool {
	_, err := fs.Stat(fsys, bundle.DeclarationName)
	return err == nil
}

// Verify checks a bundle without a hub. trusted is the verifier key that the
// caller holds of the hub; empty means the one in the bundle, which then must be
// compared by hand. The error is Invalid if the folder is no bundle of a version
// known here; all that is wrong with a bundle is in the report.
func Verify(fsys fs.FS, trusted string) (Report, error) {
	declaration, err := small(fsys, bundle.DeclarationName)
	if err != nil || !strings.HasPrefix(string(declaration), "BagIt-Version: 1.0\n") {
		return Report{}, holdfast.Errorf(holdfast.Invalid, "this is no bundle: it has no %s of version 1.0", bundle.DeclarationName)
	}
	v := &verification{fsys: fsys, hashed: map[string]bool{}}
	v.info()
	if version := v.labels.Get(bundle.LabelVersion); v.labels != nil && version != fmt.Sprint(bundle.Version) {
		return Report{}, holdfast.Errorf(holdfast.Invalid, "this is no bundle of version %d: %s says %q", bundle.Version, bundle.InfoName, version)
	}
	v.signature(trusted)
	tags, payload := v.manifest(bundle.TagManifestName, false), v.manifest(bundle.ManifestName, true)
	for _, f := range append(tags, payload...) {
		v.file(f)
	}
	v.complete(tags)
	v.others()
	v.balance(payload)
	v.ledger()
	return v.report, nil
}

type verification struct {
	fsys   fs.FS
	labels bundle.Info
	hashed map[string]bool // true: as its manifest says
	report Report
}

func (v *verification) fault(name, format string, args ...any) {
	v.report.Faults = append(v.report.Faults, name+": "+fmt.Sprintf(format, args...))
}

// unread says why a file was not read, without the operating system's words about
// where it lies.
func unread(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "is missing"
	}
	return "can't be read"
}

// maxSmall bounds the files that are read into memory.
const maxSmall = 64 << 20

func small(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = errors.New("it is too large")
	}
	return b, err
}

func (v *verification) info() {
	text, err := small(v.fsys, bundle.InfoName)
	if err != nil {
		v.fault(bundle.InfoName, "%s", unread(err))
		return
	}
	if v.labels, err = bundle.ParseInfo(text); err != nil {
		v.fault(bundle.InfoName, "%v", err)
		return
	}
	v.report.ID, v.report.Owner = v.labels.Get(bundle.LabelID), v.labels.Get(bundle.LabelOwner)
	v.report.Withheld = v.labels.Get(bundle.LabelWithheld)
}

func (v *verification) signature(trusted string) {
	tags, err := small(v.fsys, bundle.TagManifestName)
	if err != nil {
		return // a fault that manifest names
	}
	key := trusted
	if key == "" {
		key = v.labels.Get(bundle.LabelVerifier)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		v.fault(bundle.SignatureName, "can't be checked: there is no verifier key")
		return
	}
	text, err := small(v.fsys, bundle.SignatureName)
	if err != nil {
		v.fault(bundle.SignatureName, "%s", unread(err))
		return
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	switch {
	case err != nil:
		v.fault(bundle.SignatureName, "is not a signature by %s", verifier.Name())
	case signed.Text != bundle.SignedText(v.report.ID, tags):
		v.fault(bundle.SignatureName, "is not for this %s", bundle.TagManifestName)
	default:
		v.report.Signer, v.report.Trusted = key, trusted != ""
	}
}

// manifest reads a manifest of payload or of the rest.
func (v *verification) manifest(name string, payload bool) []bundle.File {
	text, err := small(v.fsys, name)
	if err != nil {
		v.fault(name, "%s", unread(err))
		return nil
	}
	files, err := bundle.ParseManifest(bytes.NewReader(text))
	if err != nil {
		v.fault(name, "%v", err)
		return nil
	}
	for _, f := range files {
		if bundle.IsPayload(f.Name) != payload {
			v.fault(name, "names %s, which belongs in another manifest", f.Name)
			return nil
		}
	}
	return files
}

// file holds a file against its manifest.
func (v *verification) file(f bundle.File) {
	v.hashed[f.Name] = false
	r, err := v.fsys.Open(f.Name)
	if err != nil {
		v.fault(f.Name, "%s", unread(err))
		return
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	switch {
	case err != nil:
		v.fault(f.Name, "%s", unread(err))
		return
	case [sha256.Size]byte(h.Sum(nil)) != f.SHA256:
		v.fault(f.Name, "is not what its manifest says: it has SHA-256 %s", hex.EncodeToString(h.Sum(nil)))
		return
	}
	v.hashed[f.Name] = true
	v.report.Files++
	v.report.Bytes += n
}

// complete finds files that a bundle has and the tagmanifest does not name.
func (v *verification) complete(tags []bundle.File) {
	if tags == nil {
		return
	}
	for _, name := range []string{bundle.DeclarationName, bundle.InfoName, bundle.ManifestName} {
		if _, ok := v.hashed[name]; !ok {
			v.fault(name, "is not named in %s", bundle.TagManifestName)
		}
	}
}

// others finds files that no manifest names.
func (v *verification) others() {
	err := fs.WalkDir(v.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			v.fault(name, "%s", unread(err))
			return nil
		}
		_, known := v.hashed[name]
		if !known && !d.IsDir() && name != bundle.TagManifestName && name != bundle.SignatureName {
			v.fault(name, "is in no manifest")
		}
		return nil
	})
	if err != nil {
		v.fault(".", "%s", unread(err))
	}
}

// balance adds up the readings and holds them against the balance sheet. What
// differs from its manifest is not read.
func (v *verification) balance(payload []bundle.File) {
	tallies := map[holdfast.StreamID]*bundle.Tally{}
	var sheets []bundle.Balance
	for _, f := range payload {
		var err error
		switch {
		case strings.HasPrefix(f.Name, strings.TrimSuffix(bundle.BalanceName, ".ndjson")):
			sheets, err = v.sheets(f.Name, sheets)
		case bundle.IsPart(f.Name):
			err = v.part(f.Name, tallies)
		default:
			continue
		}
		if err != nil {
			v.fault(f.Name, "%v", err)
		}
		if !v.hashed[f.Name] || err != nil {
			v.fault(bundle.BalanceName, "can't be checked without %s", f.Name)
			return
		}
	}
	v.report.Streams = len(sheets)
	for _, want := range sheets {
		t := tallies[want.Stream]
		if t == nil {
			t = new(bundle.Tally)
		}
		delete(tallies, want.Stream)
		have := t.Balance(want.Stream)
		v.report.Rows += have.Rows
		if have.Rows != want.Rows || have.Digest != want.Digest || !have.First.Equal(want.First) || !have.Last.Equal(want.Last) {
			v.fault(bundle.BalanceName, "stream %s has %d readings, the sheet says %d, or others", want.Stream, have.Rows, want.Rows)
		}
	}
	for id := range tallies {
		v.fault(bundle.BalanceName, "stream %s is not on the sheet", id)
	}
}

func (v *verification) sheets(name string, sheets []bundle.Balance) ([]bundle.Balance, error) {
	if !v.hashed[name] {
		return sheets, nil
	}
	f, err := v.fsys.Open(name)
	if err != nil {
		return sheets, errors.New(unread(err))
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var b bundle.Balance
		switch err := d.Decode(&b); {
		case errors.Is(err, io.EOF):
			return sheets, nil
		case err != nil:
			return sheets, errors.New("is not a balance sheet")
		}
		sheets = append(sheets, b)
	}
}

func (v *verification) part(name string, tallies map[holdfast.StreamID]*bundle.Tally) error {
	if !v.hashed[name] {
		return nil
	}
	f, err := v.fsys.Open(name)
	if err != nil {
		return errors.New(unread(err))
	}
	defer f.Close()
	r, size, err := random(f)
	if err != nil {
		return err
	}
	return bundle.ReadPart(r, size, func(s *bundle.Source, r holdfast.Reading) error {
		t := tallies[s.StreamID]
		if t == nil {
			t = new(bundle.Tally)
			tallies[s.StreamID] = t
		}
		t.Add(s.StreamID, r)
		return nil
	})
}

// random returns f for reading anywhere; one that can only be read in order is
// taken into memory, where a part has its place.
func random(f fs.File) (io.ReaderAt, int64, error) {
	if r, ok := f.(io.ReaderAt); ok {
		info, err := f.Stat()
		if err != nil {
			return nil, 0, errors.New(unread(err))
		}
		return r, info.Size(), nil
	}
	b, err := io.ReadAll(io.LimitReader(f, bundle.MaxPart+1))
	if err != nil || len(b) > bundle.MaxPart {
		return nil, 0, errors.New("can't be read, or is larger than a part")
	}
	return bytes.NewReader(b), int64(len(b)), nil
}
