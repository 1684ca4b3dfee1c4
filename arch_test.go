package holdfast_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the ground plan: a package imports only packages of lower floors.
// A new package is one line here.
var floors = map[string]int{
	"": 0,

	"internal/senml": 1, "internal/lineproto": 1, "internal/chunk": 1, "internal/seal": 1, "internal/policy": 1, "internal/dpv": 1, "internal/bundle": 1, "internal/budget": 1, "internal/checkpoint": 1,
	"internal/bench/corpus": 1, "internal/receipt": 1, "internal/escrow": 1, "internal/sparkplug": 1,

	"internal/journal": 2, "internal/blob": 2, "internal/catalog": 2, "internal/lobby": 2, "internal/issuer": 2, "internal/witness": 2, "internal/seal/residue": 2, "internal/scratch": 2,

	// 3: drivers, imported by server alone.

	"internal/vault": 4, "internal/ledger": 4,

	// Holders of the root key, imported by server alone, and what tries them.
	"internal/vault/conform": 5, "internal/vault/execholder": 5, "internal/vault/tpmholder": 5,

	"internal/identity": 5, "internal/access": 5, "internal/custody": 5, "internal/grant": 5, "internal/series": 5, "internal/twin": 5, "internal/outbox": 5,

	"internal/ingest": 6, "internal/query": 6, "internal/erasure": 6,

	"internal/archive": 7, "internal/backup": 7, "internal/handover": 7, "internal/intake": 7, "internal/timeline": 7, "internal/alarm": 7, "internal/recovery": 7,

	"internal/mqtt": 8, "internal/deviceapi": 8, "internal/api": 8, "internal/promapi": 8,

	"internal/server": 9,

	"internal/bench/load": 9, "internal/vault/vaultbench": 9, "internal/packaging": 9,

	"cmd/holdfast": 10, "internal/demo": 10, "internal/drill": 10, "internal/simtest": 10, "internal/bench": 10, "internal/bench/peers": 10, "internal/packaging/pack": 10,
}

const pure = 1

// upstairs are imports of a package on the same or a higher floor that are
// right all the same, with the reason.
var upstairs = map[string]string{
	"internal/ledger -> internal/vault":      "the ledger seals with the vault's records keys; nothing of the vault knows the ledger",
	"cmd/holdfast -> internal/demo":          "the demo's command",
	"cmd/holdfast -> internal/drill":         "the drill's command",
	"cmd/holdfast -> internal/bench":         "the bench's command",
	"internal/bench/peers -> internal/bench": "the same figures beside other programs, which are not linked into holdfast",
}

// beside are packages on no floor, and all that they may import of ours.
var beside = map[string][]string{
	"client":            {""},
	"internal/testseed": {},
	// A provider of logins for tests.
	"internal/issuer/issuertest":   {},
	"internal/journal/journaltest": {"", "internal/journal"},
	"internal/blob/blobtest":       {"", "internal/blob"},
	"internal/vault/vaulttest":     {"internal/catalog", "internal/vault", "internal/vault/conform"},
	// What the keyring takes with many owners.
	// A house of real keepers for tests of those who read.
	"internal/query/querytest": {"", "internal/access", "internal/blob", "internal/catalog", "internal/custody", "internal/grant", "internal/identity",
		"internal/ingest", "internal/journal", "internal/ledger", "internal/query", "internal/seal", "internal/series", "internal/vault"},
}

// keepsNothing are packages that import a store or write files and need no Erase,
// each with the reason.
var keepsNothing = map[string]string{
	"internal/catalog":             "opens the database; its tables are the keepers'",
	"internal/journal":             "opaque sealed records; series forgets, rolls and trims them",
	"internal/blob":                "opaque sealed objects; series punches and deletes them",
	"internal/vault":               "keys are not purged but destroyed: Destroy",
	"internal/vault/tpmholder":     "its file names a counter and generations of root keys, and nobody's data",
	"internal/ledger":              "commitments stay for ever; their payloads die with the owner's records key",
	"internal/erasure":             "its rows hold ids, which are the certificate",
	"internal/server":              "wires the stores, holds no data of its own",
	"internal/intake":              "runs beside a hub; its folder holds times and keyed checks of messages, and what metrics are called",
	"internal/backup":              "its copy of the catalog goes when the backup ends; backups themselves lie where an operator put them, and expire",
	"internal/scratch":             "its folders hold made-up owners, or a restore that is tried, and go with whoever made them or by the next of their kind",
	"internal/recovery":            "who has shares of the root key, as an administrator calls them: nothing of an owner",
	"internal/archive":             "writes only where a person named a folder for an export",
	"internal/issuer/issuertest":   "for tests",
	"client":                       "a device's or person's own identity, in the folder he named",
	"cmd/holdfast":                 "writes what its user asked for into the folder he named",
	"internal/demo":                "a hub in a temporary folder that goes when it ends",
	"internal/drill":               "a hub of made-up owners in a folder that goes when it ends, unless it is to be kept",
	"internal/bench":               "hubs and probes in a temporary folder that goes when it ends, and the page of results",
	"internal/bench/peers":         "other programs' files in temporary folders that go with them",
	"internal/packaging/pack":      "the files of a release",
	"internal/simtest":             "a disk in memory, for tests",
	"internal/journal/journaltest": "a test suite",
	"internal/blob/blobtest":       "a test suite",
	"internal/query/querytest":     "for tests",
	"internal/vault/vaulttest":     "for tests",
	"internal/vault/vaultbench":    "measures in a folder that goes when it ends",
}

const module = "github.com/holdfast-iot/holdfast"

// source is one non-test package.
type source struct {
	path    string // relative to the module, "" the root
	files   map[string]*ast.File
	imports map[string]bool
}

func sources(t *testing.T) map[string]*source {
	t.Helper()
	all := map[string]*source{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); d.IsDir() && path != "." && err == nil {
			return filepath.SkipDir // a module of its own
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if dir == "." {
			dir = ""
		}
		s := all[dir]
		if s == nil {
			s = &source{path: dir, files: map[string]*ast.File{}, imports: map[string]bool{}}
			all[dir] = s
		}
		s.files[path] = file
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			s.imports[name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ours returns the module's own packages that s imports, relative.
func (s *source) ours() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.imports)) {
		if name == module {
			out = append(out, "")
		} else if rest, ok := strings.CutPrefix(name, module+"/"); ok {
			out = append(out, rest)
		}
	}
	return out
}

func TestFloors(t *testing.T) {
	for path, s := range sources(t) {
		if allowed, ok := beside[path]; ok {
			for _, imported := range s.ours() {
				if !slices.Contains(allowed, imported) {
					t.Errorf("%s imports %q: it stands beside the house and may import only %q", path, imported, allowed)
				}
			}
			continue
		}
		floor, ok := floors[path]
		if !ok {
			t.Errorf("%s is on no floor: give it one in arch_test.go, or find the package where this belongs", path)
			continue
		}
		for _, imported := range s.ours() {
			if below, ok := floors[imported]; ok && below < floor || upstairs[path+" -> "+imported] != "" || imported == "client" && floor == 10 {
				continue
			}
			t.Errorf("%s (floor %d) imports %q (floor %d): import only downward; declare a one-method interface for what you need", path, floor, imported, floors[imported])
		}
	}
}

func TestPureFloor(t *testing.T) {
	banned := []string{"os", "net", "net/http", "context", "log", "log/slog", "database/sql", "syscall"}
	for path, s := range sources(t) {
		if f, ok := floors[path]; !ok || f > pure {
			continue
		}
		for _, b := range banned {
			if s.imports[b] {
				t.Errorf("%s imports %s: the pure floor takes the world as arguments", path, b)
			}
		}
	}
}

func TestEveryPackageHasADocAndNoInit(t *testing.T) {
	for path, s := range sources(t) {
		doc := false
		for name, f := range s.files {
			doc = doc || f.Doc != nil
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function: wiring is plain code in server", name)
				}
			}
		}
		if !doc {
			t.Errorf("package %q has no doc", path)
		}
	}
}

// A place that can hold an owner's data can be erased, or says why it need not.
func TestWhatStoresCanErase(t *testing.T) {
	for path, s := range sources(t) {
		stores := s.imports[module+"/internal/journal"] || s.imports[module+"/internal/blob"] || s.imports[module+"/internal/catalog"] || writesFiles(s)
		switch {
		case keepsNothing[path] != "" && !stores && path != "cmd/holdfast" && path != "internal/archive" && path != "internal/demo":
			t.Errorf("%s is listed as keeping nothing, but has no store: take it off the list", path)
		case stores && keepsNothing[path] == "" && !erases(s):
			t.Errorf("%s can hold an owner's data and has no Erase(ctx, holdfast.Scope): add it and its field in erasure.Places, or list the reason here", path)
		}
	}
}

var writers = regexp.MustCompile(`^(Create|CreateTemp|OpenFile|WriteFile|Mkdir|MkdirAll|MkdirTemp|Rename|CopyFS)$`)

func writesFiles(s *source) bool {
	found := false
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "os" && writers.MatchString(sel.Sel.Name) {
					found = true
				}
			}
			return !found
		})
	}
	return found
}

func erases(s *source) bool {
	for _, f := range s.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != "Erase" || len(fn.Type.Params.List) != 2 {
				continue
			}
			if sel, ok := fn.Type.Params.List[1].Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Scope" {
				return true
			}
		}
	}
	return false
}

// A table belongs to one package.
func TestTablesHaveOneOwner(t *testing.T) {
	table := regexp.MustCompile(`\b(?:FROM|JOIN|INTO|UPDATE)\s+([a-z_]+)\b`)
	owner := map[string]map[string]bool{}
	for path, s := range sources(t) {
		if floors[path] < 2 {
			continue
		}
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING || !strings.HasPrefix(lit.Value, "`") || !regexp.MustCompile(`\b(SELECT|INSERT|UPDATE|DELETE)\b`).MatchString(lit.Value) {
					return true
				}
				for _, m := range table.FindAllStringSubmatch(lit.Value, -1) {
					if owner[m[1]] == nil {
						owner[m[1]] = map[string]bool{}
					}
					owner[m[1]][path] = true
				}
				return true
			})
		}
	}
	for name, by := range owner {
		if len(by) > 1 {
			t.Errorf("table %s is named in %v: each table has one keeper", name, slices.Sorted(maps.Keys(by)))
		}
	}
}

// Keys leave the vault in the clear for the drill, and for nothing else.
func TestKeysAreRevealedToTheDrillAlone(t *testing.T) {
	may := map[string]bool{"internal/server/reveal.go": true, "internal/drill/keys.go": true}
	for _, s := range sources(t) {
		for name, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
					if !may[filepath.ToSlash(name)] {
						t.Errorf("%s calls Reveal: it gives out keys, and is for the drill alone", name)
					}
					delete(may, filepath.ToSlash(name))
				}
				return true
			})
		}
	}
	if len(may) > 0 {
		t.Errorf("these do not call Reveal any more: take them off the list: %v", slices.Collect(maps.Keys(may)))
	}
}

func TestRootUsesTheStandardLibraryOnly(t *testing.T) {
	for _, path := range []string{"", "client"} {
		s := sources(t)[path]
		if s == nil {
			continue
		}
		for name := range s.imports {
			if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") && name != module {
				t.Errorf("%q imports %s: users import it, so it brings nothing along", path, name)
			}
		}
	}
}

// The drivers of other engines are server's to choose.
func TestDriversAreImportedByServerAlone(t *testing.T) {
	for path, s := range sources(t) {
		for _, driver := range []string{"internal/journal/jetstream", "internal/blob/s3", "internal/catalog/postgres"} {
			if s.imports[module+"/"+driver] && path != "internal/server" {
				t.Errorf("%s imports the driver %s: only server does", path, driver)
			}
		}
	}
}

// What README and the documents point to is there.
func TestDocumentsPointToWhatIsThere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	path := regexp.MustCompile("`((?:internal|cmd|client|docs)/[A-Za-z0-9_./-]+)`")
	for _, page := range append(append(pages, more...), "README.md", "CONTRIBUTING.md", "SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links %s, which is not there", page, m[1])
			}
		}
		for _, m := range path.FindAllStringSubmatch(string(text), -1) {
			if strings.HasPrefix(m[1], "cmd/ID") { // a topic
				continue
			}
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
}
