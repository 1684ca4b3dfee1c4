package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// memoryBefore says whether memory can be searched: keys that are there are found.
func (d *drill) memoryBefore(h *hunt) error {
	t := new(Tally)
	w := &wanted{deadKeys: h.owners, liveKeys: h.living}
	if err := w.process(d.hub.cmd.Process.Pid, t); err != nil {
		return err
	}
	if t.Hits == 0 {
		return holdfast.Errorf(holdfast.Internal, "the keys that will be destroyed are not found in memory before")
	}
	d.add(Step{ID: "memory-before", What: "before the erasure the keys that it destroys are found in the hub's memory", Result: Pass, Detail: fmt.Sprintf("%d traces in %.1f MB", t.Hits, float64(t.Bytes)/1e6)})
	return nil
}

// memoryAfter looks for destroyed keys in the process that destroyed them.
func (d *drill) memoryAfter(ctx context.Context, h *hunt, visible error, pid int) {
	const what = "memory of the hub that erased: keys of the erased owner"
	if visible != nil {
		d.add(Step{ID: "memory", What: what, Result: NotTried, Detail: "memory can't be searched here: " + visible.Error()})
		return
	}
	_, _, err := d.readings(ctx, d.hub, d.control.token, d.control) // so that his keys are there
	t := new(Tally)
	w := &wanted{dead: h.ownerWords, deadKeys: h.owners, liveKeys: h.living}
	err = errors.Join(err, w.process(d.hub.cmd.Process.Pid, t))
	if pid != 0 {
		err = errors.Join(err, w.process(pid, t))
	}
	d.searched("memory", what, t, err)
	d.oldRoot("memory-root-key", h)
}

// oldRoot looks for the root key of before in memory, which is not promised to be
// gone there (docs/threat-model.md): it is a limit if it is found.
func (d *drill) oldRoot(id string, h *hunt) {
	t := new(Tally)
	w := &wanted{dead: h.rootWords, deadKeys: h.root, liveKeys: h.living}
	s := Step{ID: id, What: "memory of the hub that erased: the root key of before", Result: Pass, Tally: t}
	if err := w.process(d.hub.cmd.Process.Pid, t); err != nil {
		s.Result, s.Detail = Fail, err.Error()
	} else if t.Hits > 0 {
		s.Result, s.Detail = Limit, "a copy stayed on a stack or in a buffer until that memory is used again or the hub restarts; it opens only a copy of the keyring of before"
	}
	d.add(s)
}

// restarted looks at a hub that was started after the erasure.
func (d *drill) restarted(ctx context.Context, h *hunt, gone *wanted, visible error) {
	const what = "memory of the hub after a restart: patterns, keys of the erased owner, old root keys"
	if visible != nil {
		d.add(Step{ID: "memory-restarted", What: what, Result: NotTried, Detail: "memory can't be searched here: " + visible.Error()})
		return
	}
	_, _, err := d.readings(ctx, d.hub, d.control.token, d.control)
	t := new(Tally)
	pid := d.hub.cmd.Process.Pid
	err = errors.Join(err, gone.process(pid, t), (&wanted{dead: h.ownerWords, deadKeys: h.owners, liveKeys: h.living}).process(pid, t), (&wanted{dead: h.rootWords, deadKeys: h.root}).process(pid, t))
	d.searched("memory-restarted", what, t, err)
}

// keyring opens the stopped hub with its root key: nothing of the erased may be
// among what that opens.
func (d *drill) keyring(ctx context.Context, h *hunt, before keys, owners map[vault.Owner]bool) {
	after, err := d.keys(ctx)
	if err != nil {
		d.check("keyring", "what the root key of now opens", "", err)
		return
	}
	known := map[[32]byte]string{}
	for _, r := range before.all {
		if owners[r.Owner] || r.What == "root key" || r.What == "page key" {
			known[r.Key] = r.What
		}
	}
	living := 0
	for _, r := range after.all {
		if what, is := known[r.Key]; is || owners[r.Owner] {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "it opens %s %s of the erased owner", what, r.What))
		}
		living++
	}
	for k := range after.wrapping {
		if before.wrapping[k] {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "a holder has the wrapping key of before"))
		}
		h.livingWords.add("the root key file's key of now", []byte(k))
	}
	d.check("keyring", "what the root key of now opens: none of the destroyed keys", fmt.Sprintf("%d keys, %d of before looked for", living, len(known)), err)
}

// keyFiles looks for destroyed keys in all files of the hub and its holders.
func (d *drill) keyFiles(_ context.Context, h *hunt) {
	t := new(Tally)
	w := &wanted{dead: h.rootWords, live: h.livingWords, deadKeys: h.root}
	err := w.tree(d.root(), t)
	err = errors.Join(err, (&wanted{dead: h.ownerWords, deadKeys: h.owners}).tree(d.root(), t))
	d.searched("files-keys", "all files of the hub, its root keys' and its backups' folders: destroyed keys", t, err)
}

// searchBackups decrypts every backup and looks through it.
func (d *drill) searchBackups(ctx context.Context, h *hunt, gone *wanted) {
	t := &Tally{Where: InBackups}
	err := func() (err error) {
		key, err := os.ReadFile(d.ageKey())
		if err != nil {
			return err
		}
		ids, err := backup.ParseIdentities(d.ageKey(), key)
		if err != nil {
			return err
		}
		f, err := backup.ReadFolder(d.backups())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }() // open, it would keep the disk from being unmounted
		all, err := f.Snapshots()
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return holdfast.Errorf(holdfast.Internal, "there is no backup")
		}
		for _, s := range all {
			dir := filepath.Join(d.scratch(), "backup-"+s.ID)
			if err := unpack(ctx, f, s.ID, ids, dir); err != nil {
				return err
			}
			if err := errors.Join(gone.tree(dir, t), (&wanted{dead: h.ownerWords, deadKeys: h.owners}).tree(dir, t), (&wanted{dead: h.rootWords, deadKeys: h.root}).tree(dir, t)); err != nil {
				return err
			}
		}
		return nil
	}()
	d.searched("backups", "every backup, decrypted with its age identity: patterns and keys", t, err)
}

func unpack(ctx context.Context, f *backup.Folder, id string, ids []age.Identity, dir string) error {
	r, err := f.Open(id, ids, "")
	if err != nil {
		return err
	}
	catalog, segments := filepath.Join(dir, "catalog"), filepath.Join(dir, "segments")
	if err := makeAll(catalog, segments); err != nil {
		return err
	}
	if err := r.FetchCatalog(ctx, catalog); err != nil {
		return err
	}
	blobs, err := blob.OpenDir(segments)
	if err != nil {
		return err
	}
	return errors.Join(r.FetchSegments(ctx, catalog, blobs, nil), blobs.Close())
}

func makeAll(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}
