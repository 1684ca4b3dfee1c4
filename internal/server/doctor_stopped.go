package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// DoctorStopped looks at the data folder of a hub that does not answer. It reads
// only what needs no key, and changes nothing.
func DoctorStopped(c Config) ([]api.Finding, error) {
	c = c.withDefaults()
	return doctorStopped(machineHost(), c)
}

func doctorStopped(h host, c Config) ([]api.Finding, error) {
	if _, err := os.Stat(c.Data); errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no data folder %s: make one with holdfast init %s", c.Data, c.Data)
	}
	x := examine(h, c.Data)
	restored, err := readRestored(osFolder(c.Data))
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		x.add("folder-damaged", err.Error(), "put back your copy of "+restoreFile+"; don't remove it: nobody may come in before the restore is confirmed")
	}
	if restored.Format != "" && !restored.Whole {
		x.unfinished(restored)
		x.disk()
		x.versions(c.Version)
		return x.findings(), nil
	}
	x.suspended(restored)
	f, err := readFolder(osFolder(c.Data), c.Data)
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		return nil, err
	case errors.Is(err, fs.ErrPermission):
		return nil, holdfast.Errorf(holdfast.Denied, "the data folder can't be read: ask as its owner (sudo -u holdfast holdfast doctor --data %s): %w", c.Data, err)
	case err != nil:
		x.add("folder-damaged", err.Error(), "don't delete anything; cp -a "+c.Data+" elsewhere first, then do what docs/operations.md says about damage")
	}
	x.down()
	x.whole()
	x.disk()
	x.interrupted()
	x.upgrade()
	x.clock()
	x.fileTimes()
	x.holdersOfStopped(c, f, err == nil)
	if ca := certificateIn(filepath.Join(c.Data, adminDir, "ca.pem")); ca != nil {
		x.authority(ca.NotAfter)
	}
	if cert := certificateIn(filepath.Join(c.Data, adminDir, "cert.pem")); cert != nil && cert.NotAfter.Sub(x.now) < soon {
		x.since("credentials-end", time.Time{}, "the first administrator's certificate ends on "+cert.NotAfter.UTC().Format(time.DateOnly),
			"start the hub, then make another administrator's credential: holdfast token add --help")
	}
	x.versions(c.Version)
	return x.findings(), nil
}

func (x *examination) versions(version string) {
	x.add("versions", fmt.Sprintf("holdfast %s, %s", cmp.Or(version, "(devel)"), runtime.Version()), "nothing to do; compare with what is released")
}

// down says that the hub does not run, and what can be seen of why.
func (x *examination) down() {
	const look = "look at its log (journalctl -u holdfast -n 50)"
	since := time.Time{}
	run, err := x.host.Stat(filepath.Join(x.data, runFile))
	switch {
	case x.taken():
		x.add("hub-down", "the hub does not answer, though a process has its data folder: it starts, ends or hangs", look+"; a start that replays or migrates says how far it is")
	case err == nil:
		since = run.Time
		x.add("hub-down", "the hub does not run, and did not come to an orderly end; it had started on "+since.UTC().Format(time.RFC3339),
			look+", then start it: holdfast serve --data "+x.data)
	default:
		if o, err := x.host.Stat(filepath.Join(x.data, ledgerFile)); err == nil {
			since = o.Time
		}
		x.add("hub-down", "the hub does not run; it wrote last on "+since.UTC().Format(time.RFC3339), "holdfast serve --data "+x.data)
	}
}

// taken reports whether a process has the folder. The lock is asked for beside
// others who only look, and given back at once.
func (x *examination) taken() bool {
	f, err := os.Open(filepath.Join(x.data, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// whole looks whether all parts of the folder are there.
func (x *examination) whole() {
	const put = "don't start the hub; put the folder back as a whole, from a copy of one time (docs/operations.md)"
	for _, part := range []string{catalogDir, journalDir, segmentsDir, keyringDir} {
		if _, err := os.Stat(filepath.Join(x.data, part)); errors.Is(err, fs.ErrNotExist) {
			x.add("folder-damaged", "the folder "+part+" is missing", put)
		}
	}
	f, err := os.Open(filepath.Join(x.data, catalogDir, "catalog.db"))
	if errors.Is(err, fs.ErrNotExist) {
		x.add("folder-damaged", "the catalog is missing", put)
	}
	if err != nil {
		return
	}
	defer f.Close()
	head := make([]byte, 16)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		x.add("folder-damaged", "the catalog does not begin as one does", put)
	}
}

// holdersOfStopped looks at the holders that can be looked at without asking them.
// readable says that holdfast.json was read.
func (x *examination) holdersOfStopped(c Config, f folder, readable bool) {
	k := keys{Holders: []keyHolder{{Name: rootKeyHolder, URL: "file:" + c.RootKey}}}
	if readable {
		var err error
		if k, err = readKeys(osFolder(c.Data), c.Data, f); err != nil {
			x.add("folder-damaged", err.Error(), "put back your copy of "+keysFile+"; don't remove it")
			return
		}
	}
	x.holders(k)
	x.copies(k, nil)
	var files []keyFile
	live, said := 0, map[string]error{}
	for _, h := range k.Holders {
		if !h.FencedAt.IsZero() {
			continue
		}
		live++
		u, err := parseHolder(h.URL)
		if h.Name == rootKeyHolder && c.RootKey != "" {
			u, err = holderURL{scheme: schemeFile, path: c.RootKey}, nil
		}
		if err == nil && u.scheme == schemeFile {
			f := x.lookAtKey(h.Name, u.path)
			files, said[h.Name] = append(files, f), f.silent
		}
	}
	for _, f := range files {
		f.alone, f.other = live < 2, answering(said, f.name)
		x.rootKey(f)
	}
}

// lookAtKey sees what it can of a root key file without opening it: whether it is of
// the keyring's time.
func (x *examination) lookAtKey(name, path string) keyFile {
	if inside(x.data, path) {
		x.add("root-key-inside", "the root key lies in the data folder: serve refuses that, for whoever copies the folder has both", x.move(name, path))
	}
	f := keyFile{name: name, path: path, protected: true} // as far as is known
	look, err := vault.LookAtFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.silent = err
		return f
	case holdfast.KindOf(err) == holdfast.Invalid:
		x.add("folder-damaged", err.Error(), "put back your newest copy of the root key")
	case err == nil:
		f.protected = look.Protected
	}
	if err != nil {
		return f
	}
	wants := x.headGenerations()
	if !slices.ContainsFunc(wants, func(n uint64) bool { return slices.Contains(look.Generations, n) }) && len(wants) > 0 {
		f.silent = holdfast.Errorf(holdfast.Conflict, "%s holds generation %s, the keyring is of generation %s: one of them is of another time", path, generationList(look.Generations), generationList(wants))
	}
	return f
}

// headGenerations are those of the keyring's heads in the data folder, by their names.
func (x *examination) headGenerations() (out []uint64) {
	heads, _ := filepath.Glob(filepath.Join(x.data, keyringDir, "head-*"))
	for _, h := range heads {
		if n, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(h), "head-"), 10, 64); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func generationList(all []uint64) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(all), " ", ", "), "[]")
}
