package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A guarded hub has a second root key file and two copies of the keyring, each on a
// volume of its own that may fail. Its operator fences the second holder, brings it
// back, loses copies, and puts a copy in the place of a keyring that is lost.

const second = "second"

// guard gives the hub of an image its second holder and its copies.
func (img *image) guard(ctx context.Context) error {
	img.disk.volumes = newVolumes()
	for at := range img.disk.volumes {
		if err := errors.Join(img.disk.Mkdir(at, 0o700), img.disk.SyncFolder("/")); err != nil {
			return err
		}
	}
	err := command(img.disk, func(c server.Config) error {
		_, err := server.AddHolder(ctx, c, server.HolderSpec{Name: second, URL: "file:" + SecondKey})
		return err
	})
	for i, at := range []string{NearCopy, FarCopy} {
		err = errors.Join(err, command(img.disk, func(c server.Config) error {
			return server.AddCopy(ctx, c, fmt.Sprintf("copy%d", i), "file:"+at)
		}))
	}
	return err
}

// command runs what needs the hub to be stopped.
func command(d *Disk, do func(server.Config) error) error {
	v, err := RegisterVFS(d)
	if err != nil {
		return err
	}
	err = do(server.Config{Data: DataFolder, RootKey: RootKey, Ground: d.Ground(v, NewNetwork(), nil)})
	return errors.Join(err, v.Close())
}

// tend is what happens to a guarded hub between two of its lives.
func (w *world) tend(ctx context.Context) error {
	if !w.img.guarded {
		return nil
	}
	if err := w.copiesKeepUp(); err != nil {
		return err
	}
	w.upset()
	fenced, err := w.fenced()
	if err != nil {
		return err
	}
	away := w.disk.volumes["/key2"].away
	switch {
	case !fenced && away && w.r.IntN(3) > 0, !fenced && w.r.IntN(10) == 0:
		w.operator("fence", func(c server.Config) error { _, _, err := server.FenceHolder(ctx, c, second); return err })
	case fenced && !away && w.r.IntN(2) == 0:
		w.operator("return", func(c server.Config) error { _, err := server.ReturnHolder(ctx, c, second, ""); return err })
	}
	switch w.r.IntN(10) {
	case 0:
		at := []string{NearCopy, FarCopy}[w.r.IntN(2)]
		w.note("the copy in %s is lost", at)
		if err := w.empty(at); err != nil {
			return err
		}
		w.operator("begin it anew", func(c server.Config) error { return w.beginAnew(c, at) })
		return nil
	case 1:
		return w.keyringLost()
	}
	return nil
}

// beginAnew has a copy that is lost begin again in its folder: the hub does not begin one
// where it finds nothing.
func (w *world) beginAnew(c server.Config, at string) error {
	name := "copy" + strconv.Itoa(slices.Index([]string{NearCopy, FarCopy}, at))
	if _, err := server.RemoveCopy(context.Background(), c, name); err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return err
	}
	return server.AddCopy(context.Background(), c, name, "file:"+at)
}

// operator does a command, in which the power may go.
func (w *world) operator(what string, do func(server.Config) error) {
	cut, steps := 0, 0
	if w.r.IntN(2) == 0 {
		cut = 1 + w.r.IntN(60)
	}
	w.disk.Plan(func(string, string) Fate {
		if steps++; steps == cut {
			return PowerCut + Fate(w.faults.IntN(3))
		}
		return Fine
	}, nil)
	err := command(w.disk, do)
	w.note("%s, power goes at step %d: failed %v", what, cut, err != nil)
	w.say("%v", err)
	if w.disk.Dead() {
		w.cuts++
		w.disk = w.disk.Reboot(w.r.Uint64() ^ w.lossSeed)
	}
	w.disk.Revive()
}

// upset changes how a volume does, now and then.
func (w *world) upset() {
	at := []string{"/key2", NearCopy, FarCopy}[w.r.IntN(3)]
	v := w.disk.volumes[at]
	switch w.r.IntN(5) {
	case 0:
		v.change(func(v *volume) { v.away = !v.away })
	case 1:
		v.change(func(v *volume) { v.full = !v.full })
	default:
		v.change(func(v *volume) { v.away, v.full = false, false })
	}
	w.note("%s is away %v, full %v", at, v.away, v.full)
}

// fenced reports what keys.json says of the second holder.
func (w *world) fenced() (bool, error) {
	b, err := w.disk.ReadFile(path.Join(DataFolder, "keys.json"))
	if err != nil {
		return false, err
	}
	var k struct {
		Holders []struct {
			Name     string
			FencedAt string `json:"fenced_at"`
		}
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return false, err
	}
	for _, h := range k.Holders {
		if h.Name == second {
			return h.FencedAt != "", nil
		}
	}
	return false, errors.New("keys.json does not name the second holder")
}

// unnamed reports that keys.json does not name a copy.
func (w *world) unnamed(at string) bool {
	b, err := w.disk.ReadFile(path.Join(DataFolder, "keys.json"))
	return err == nil && !bytes.Contains(b, []byte("file:"+at+"\""))
}

// heads are the generations of the heads in a folder.
func (w *world) heads(at string) (out []uint64, err error) {
	entries, err := w.disk.ReadDir(at)
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), "head-"); ok {
			if g, err := strconv.ParseUint(n, 10, 64); err == nil {
				out = append(out, g)
			}
		}
	}
	return out, err
}

// held are the generations of which the first root key file has keys.
func (w *world) held() (out []uint64, err error) {
	b, err := w.disk.ReadFile(RootKey)
	if err != nil {
		return nil, err
	}
	var doc struct{ Keys map[uint64]string }
	err = json.Unmarshal(b, &doc)
	for n := range doc.Keys {
		out = append(out, n)
	}
	return out, err
}

// current reports whether a copy has a head that the first holder opens.
func (w *world) current(at string) (bool, error) {
	held, err := w.held()
	if err != nil {
		return false, err
	}
	heads, err := w.heads(at)
	return slices.ContainsFunc(heads, func(n uint64) bool { return slices.Contains(held, n) }), err
}

// copiesKeepUp demands that a copy at least opens at any moment, unless all of them
// were lost, and that what is erased in a copy does not come back to it.
func (w *world) copiesKeepUp() error {
	any := false
	for _, at := range []string{NearCopy, FarCopy} {
		now, err := w.current(at)
		if err != nil {
			return err
		}
		any = any || now
		if now {
			delete(w.lost, at)
		}
		heads, err := w.heads(at)
		if err != nil || len(heads) == 0 {
			continue
		}
		// What was given up may be taken out again; what is in force stays.
		if newest := slices.Max(heads); now && newest >= w.newest[at] {
			w.newest[at] = newest
		} else if held, _ := w.held(); w.newest[at] > newest && slices.Contains(held, w.newest[at]) && !slices.Contains(held, newest) {
			return fmt.Errorf("the copy in %s went from generation %d back to %d", at, w.newest[at], newest)
		}
	}
	if !any && len(w.lost) == 0 {
		return errors.New("no copy of the keyring has what opens")
	}
	return nil
}

// empty takes all out of a folder, as another disk in its place would.
func (w *world) empty(at string) error {
	entries, err := w.disk.ReadDir(at)
	for _, e := range entries {
		err = errors.Join(err, w.disk.Remove(path.Join(at, e.Name())))
	}
	if at != path.Join(DataFolder, "keyring") {
		w.lost[at] = true
		delete(w.newest, at)
	}
	return errors.Join(err, w.disk.SyncFolder(at))
}

// keyringLost puts a copy that opens in the place of the keyring, if there is one.
func (w *world) keyringLost() error {
	for _, from := range []string{FarCopy, NearCopy} {
		if now, err := w.current(from); err != nil || !now || w.lost[from] {
			continue
		}
		to := path.Join(DataFolder, "keyring")
		w.note("the keyring is lost, and put back from %s", from)
		if err := w.empty(to); err != nil {
			return err
		}
		entries, err := w.disk.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "takebacks-") || path.Ext(e.Name()) != "" {
				continue
			}
			b, err := w.disk.ReadFile(path.Join(from, e.Name()))
			if err != nil {
				return err
			}
			f, err := w.disk.Open(path.Join(to, e.Name()), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fs.FileMode(0o600))
			if err != nil {
				return err
			}
			if _, err := f.Write(b); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
		}
		return w.disk.SyncFolder(to)
	}
	return nil
}

// mend is the end of all faults of volumes: who was fenced is asked again.
func (w *world) mend(ctx context.Context) error {
	if !w.img.guarded {
		return nil
	}
	w.disk.volumes.mended()
	fenced, err := w.fenced()
	if err != nil {
		return err
	}
	w.disk.Plan(nil, nil)
	for _, at := range []string{NearCopy, FarCopy} {
		if heads, err := w.heads(at); err != nil {
			return err
		} else if len(heads) > 0 && !w.unnamed(at) {
			continue
		}
		if err := w.empty(at); err != nil { // of what a begin has left that was cut short
			return err
		}
		if err := command(w.disk, func(c server.Config) error { return w.beginAnew(c, at) }); err != nil {
			return fmt.Errorf("the copy in %s can't be begun anew: %w", at, err)
		}
	}
	if !fenced {
		return nil
	}
	if err := command(w.disk, func(c server.Config) error { _, err := server.ReturnHolder(ctx, c, second, ""); return err }); err != nil {
		return fmt.Errorf("the second holder can't be returned: %w", err)
	}
	return nil
}

// copiesWhole demands that each copy is what the keyring is.
func (w *world) copiesWhole() error {
	if !w.img.guarded {
		return nil
	}
	files := keyFiles{w.disk, nil}
	for _, at := range []string{NearCopy, FarCopy} {
		check, err := vault.VerifyCopy(vault.DirOn(files, path.Join(DataFolder, "keyring")), vault.DirOn(files, at))
		if err != nil || len(check.Missing)+len(check.Different) > 0 {
			return fmt.Errorf("the copy in %s is not the keyring: %+v %w", at, check, err)
		}
	}
	return nil
}
