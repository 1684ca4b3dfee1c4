package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// top is the module's folder.
const top = "../.."

func output(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir = dir
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", program, args, err, out, &errs)
	}
	return string(out)
}

// tool reports whether a foreign program is there; ./test installs what it can.
func tool(t *testing.T, name string) bool {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	if os.Getenv("HOLDFAST_NO_TOOLS") != "1" {
		t.Errorf("%s is not installed: ./test installs it, or HOLDFAST_NO_TOOLS=1 leaves out what needs it", name)
	} else {
		t.Logf("LEFT OUT: there is no %s", name)
	}
	return false
}

// What is linked into the program, for any platform of a release, is in NOTICE with
// its licence, and may be passed on.
func TestNoticeHasWhatIsLinked(t *testing.T) {
	all, err := Listed(top, Platforms())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d modules are linked", len(all))
	}
	if err := CheckLicences(all); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(top, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	if lacks := ParseNotice(string(text)).Lacks(all); len(lacks) > 0 {
		t.Errorf("NOTICE lacks %s: run ./release --notice", strings.Join(lacks, ", "))
	}
	// It can fail.
	if lacks := ParseNotice(string(text)).Lacks([]Module{{Path: "example.org/new", Version: "v1.0.0", Notice: "Copyright somebody"}}); len(lacks) != 2 {
		t.Errorf("a module that nobody entered lacks %v", lacks)
	}
}

func TestUnknownLicencesStopARelease(t *testing.T) {
	dir := t.TempDir()
	m := Module{Path: "example.org/odd", Version: "v1.0.0"}
	if err := m.Describe(dir); err == nil {
		t.Error("a module without a licence is described")
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("Eclipse Public License - v 2.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Describe(dir); err != nil || CheckLicences([]Module{m}) == nil {
		t.Errorf("%q passes: %v", m.Licence, err)
	}
}

func TestNoticeIsWrittenForWhatIsLinked(t *testing.T) {
	n := ParseNotice("Head\n\nexample.org/a v1.0.0\n    MIT\n    Copyright A\nexample.org/gone v1.0.0\n    MIT\n\nTail\n")
	got := n.With([]Module{{Path: "example.org/a", Version: "v1.1.0"}, {Path: "example.org/b", Version: "v2.0.0", Licence: "ISC", Copyrights: []string{"Copyright B"}, Notice: "Notice of B"}})
	want := "Head\n\nexample.org/a v1.1.0\n    MIT\n    Copyright A\nexample.org/b v2.0.0\n    ISC\n    Copyright B\n\nTail\n\nexample.org/b:\nNotice of B\n"
	if got != want {
		t.Errorf("%s", got)
	}
}

// A release of one platform is built twice, in two folders, and every byte is the
// same; what is in it is what it says, and the commands of docs/release.md check it.
// ./release --check does so for all platforms, without the cache.
func TestTwoBuildsAreTheSame(t *testing.T) {
	if testing.Short() || !tool(t, "ssh-keygen") {
		return
	}
	work := t.TempDir()
	key, dist := filepath.Join(work, "key"), filepath.Join(work, "dist")
	output(t, work, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key)
	sums := output(t, top, "./release", "--check", "--fast", "--target", "linux/amd64", "--version", "7.8.9", "--key", key, "--out", dist)
	if !regexp.MustCompile(`(?m)^[0-9a-f]{64}  holdfast-7\.8\.9-linux-amd64\.tar\.gz$`).MatchString(sums) {
		t.Errorf("the archive is not among %s", sums)
	}

	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dist, "allowed_signers"), append([]byte("release@holdfast-iot "), public...), 0o600); err != nil {
		t.Fatal(err)
	}
	const check = `ssh-keygen -Y verify -f allowed_signers -I release@holdfast-iot -n holdfast-release -s SHA256SUMS.sig < SHA256SUMS && sha256sum -c --ignore-missing SHA256SUMS`
	output(t, dist, "sh", "-c", check)
	if err := exec.Command("sh", "-c", "cd "+dist+" && echo >> SHA256SUMS && "+check).Run(); err == nil {
		t.Error("a changed list of sums is verified")
	}

	drilled(t, dist)

	archive := filepath.Join(dist, "holdfast-7.8.9-linux-amd64.tar.gz")
	names := strings.Fields(output(t, dist, "tar", "-xvzf", archive))
	for _, want := range []string{"holdfast", "LICENSE", "NOTICE", "deploy/holdfast.service", "share/man/man1/holdfast.1", "share/bash-completion/completions/holdfast", "holdfast.cdx.json"} {
		if !slices.Contains(names, "holdfast-7.8.9-linux-amd64/"+want) {
			t.Errorf("the archive has no %s", want)
		}
	}
	folder := filepath.Join(dist, "holdfast-7.8.9-linux-amd64")
	binary := filepath.Join(folder, "holdfast")
	static(t, binary)
	var v struct {
		Version, Commit, Date, Go string
		Modules                   int
	}
	if err := json.Unmarshal([]byte(output(t, folder, "./holdfast", "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Version != "7.8.9" || len(v.Commit) < 40 || v.Date == "" || v.Modules < 20 {
		t.Errorf("it says that it is %+v", v)
	}
	billOfMaterials(t, filepath.Join(folder, "holdfast.cdx.json"), binary, v.Modules)
	image(t, filepath.Join(dist, "holdfast-7.8.9-image.tar"), binary)
	debian(t, filepath.Join(dist, "holdfast_7.8.9_amd64.deb"))
}

// drilled fails unless the report of the drill is beside the artefacts, and summed and
// signed as they are.
func drilled(t *testing.T, dist string) {
	t.Helper()
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"holdfast-7.8.9-drill.json", "holdfast-7.8.9-drill.md"} {
		if !strings.Contains(string(sums), "  "+name+"\n") {
			t.Errorf("%s is not among %s", name, sums)
		}
	}
	text, err := os.ReadFile(filepath.Join(dist, "holdfast-7.8.9-drill.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Format  string `json:"holdfast-drill"`
		Version string
		Passed  bool
		Hits    int
		Planted []struct{ Place string }
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Format != "1" || r.Version != "7.8.9" || !r.Passed || r.Hits != 0 || len(r.Planted) < 20 {
		t.Errorf("the report: %+v", r)
	}
}

// static fails if a binary needs a loader or a library.
func static(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static", path)
		}
	}
}

func billOfMaterials(t *testing.T, path, binary string, modules int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(f, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != cyclonedx.SpecVersion1_6 || len(*bom.Components) != modules+1 || !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(bom.SerialNumber) {
		t.Errorf("bill of materials %s of %d components, serial %s", bom.SpecVersion, len(*bom.Components), bom.SerialNumber)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if h := (*bom.Metadata.Component.Hashes)[0].Value; h != hex.EncodeToString(sum[:]) {
		t.Errorf("it is the bill of a binary with sum %s", h)
	}
	linked, _, err := Linked(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range linked {
		if !slices.ContainsFunc(*bom.Components, func(c cyclonedx.Component) bool {
			return c.Name == m.Path && c.Version == m.Version && c.Licenses != nil && c.PackageURL == "pkg:golang/"+m.Path+"@"+m.Version
		}) {
			t.Errorf("%s is not in the bill of materials, or without a licence", m.Path)
		}
	}
	// Decoded and encoded again nothing is lost.
	var again bytes.Buffer
	e := cyclonedx.NewBOMEncoder(&again, cyclonedx.BOMFileFormatJSON)
	e.SetPretty(true)
	if err := e.Encode(&bom); err != nil {
		t.Fatal(err)
	}
	var a, b any
	text, err := os.ReadFile(path)
	if err := errors.Join(err, json.Unmarshal(text, &a), json.Unmarshal(again.Bytes(), &b)); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the bill of materials changes by being read and written: %v", err)
	}
}

// image follows an OCI layout from its index to the program in the layer.
func image(t *testing.T, path, binary string) {
	t.Helper()
	blobs := entries(t, path)
	var index, manifests, manifest struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
		Config struct{ Digest string }
		Layers []struct {
			Digest string
			Size   int
		}
	}
	var config struct {
		Config struct {
			User            string
			Entrypoint, Cmd []string
			Volumes         map[string]any
		}
		Rootfs struct {
			Diff []string `json:"diff_ids"`
		}
	}
	get := func(digest string) []byte {
		t.Helper()
		b, ok := blobs["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
		if sum := sha256.Sum256(b); !ok || "sha256:"+hex.EncodeToString(sum[:]) != digest {
			t.Fatalf("blob %s is not what its name says", digest)
		}
		return b
	}
	decode := func(b []byte, into any) {
		t.Helper()
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	decode(blobs["index.json"], &index)
	decode(get(index.Manifests[0].Digest), &manifests)
	if len(manifests.Manifests) != 1 || manifests.Manifests[0].Platform.Architecture != "amd64" {
		t.Fatalf("the image is for %+v", manifests.Manifests)
	}
	decode(get(manifests.Manifests[0].Digest), &manifest)
	decode(get(manifest.Config.Digest), &config)
	if config.Config.User != "65532:65532" || len(config.Config.Volumes) != 2 || config.Config.Entrypoint[0] != "/holdfast" {
		t.Errorf("the image runs as %+v", config.Config)
	}
	packed := get(manifest.Layers[0].Digest)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(layer); config.Rootfs.Diff[0] != "sha256:"+hex.EncodeToString(sum[:]) || manifest.Layers[0].Size != len(packed) {
		t.Error("the layer is not the one that the configuration names")
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if got := tarEntries(t, bytes.NewReader(layer)); !bytes.Equal(got["holdfast"], program) {
		t.Error("the image has another program than the archive")
	}
}

func entries(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return tarEntries(t, f)
}

func tarEntries(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if all[h.Name], err = io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
	}
}

func debian(t *testing.T, path string) {
	t.Helper()
	if !tool(t, "dpkg-deb") {
		return
	}
	if out := output(t, ".", "dpkg-deb", "-f", path, "Version", "Architecture"); out != "Version: 7.8.9\nArchitecture: amd64\n" {
		t.Errorf("the package says %s", out)
	}
	if out := output(t, ".", "dpkg-deb", "-c", path); !strings.Contains(out, "-rwxr-xr-x root/root") || !strings.Contains(out, "./usr/lib/systemd/system/holdfast.service") || !strings.Contains(out, "./usr/share/man/man1/holdfast.1.gz") {
		t.Errorf("the package has %s", out)
	}
}

// The Containerfile copies what there is, or what ./release builds, and the image
// that ./release makes is run the same way.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(top, "release"))
	if err != nil {
		t.Fatal(err)
	}
	copies, users := 0, ""
	arguments := regexp.MustCompile(`\$\{(\w+)\}`)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "FROM" && words[1] != "scratch":
			t.Errorf("the image is made of %s", words[1])
		case words[0] == "USER":
			users += words[1]
		case words[0] == "CMD":
			if want, _ := json.Marshal(ServeArguments()); strings.ReplaceAll(strings.TrimSpace(strings.TrimPrefix(line, "CMD")), ", ", ",") != string(want) {
				t.Errorf("it runs %s and the other image %s", line, want)
			}
		case words[0] == "COPY":
			copies++
			from := words[len(words)-2]
			if built := arguments.ReplaceAllString(from, ""); built != from { // one of what ./release builds
				if built != "dist/bin/linux-/holdfast" || !strings.Contains(string(script), `$out/bin/$(folder "$t")/holdfast`) {
					t.Errorf("%s is not what ./release makes", from)
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(top, from)); err != nil {
				t.Errorf("COPY %s: %v", from, err)
			}
		}
	}
	if copies < 3 || users != fmt.Sprintf("%d:%d", ImageUser, ImageUser) || !strings.Contains(string(text), "HEALTHCHECK") {
		t.Errorf("%d files are copied, and run by %q", copies, users)
	}
}

// systemd itself reads the unit, and finds little to be afraid of.
func TestUnit(t *testing.T) {
	if !tool(t, "systemd-analyze") {
		return
	}
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(top, "deploy/holdfast.service"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "holdfast") // verify wants to see it
	unit := filepath.Join(dir, "holdfast.service")
	if err := errors.Join(os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700),
		os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/holdfast"), []byte(program)), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=yes", "--threshold=15", "--no-pager", unit}, // of 100; without hardening it is 96
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); args[0] == "security" {
			t.Log(lines[len(lines)-1])
		}
	}
}

func TestArchivesAreTheSameEachTime(t *testing.T) {
	files := []File{{Name: "b", Mode: 0o644, Data: []byte("two")}, {Name: "a/", Mode: 0o755}, {Name: "a/c", Mode: 0o755, Data: []byte("one")}}
	var first, second bytes.Buffer
	at := time.Unix(1_700_000_000, 0)
	if err := WriteTarGz(&first, files, at, 9); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if err := WriteTarGz(&second, files, at.In(time.FixedZone("", 3600)), 9); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the order of files, or the zone, changes the archive")
	}
}
