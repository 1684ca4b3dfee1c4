package vault

import (
	"errors"
	"testing"
)

// unsyncedFiles is a file system whose syncs of folders fail after a number.
type unsyncedFiles struct {
	Files
	left *int
}

func (f unsyncedFiles) SyncFolder(path string) error {
	if *f.left--; *f.left < 0 {
		return errFault
	}
	return f.Files.SyncFolder(path)
}

// A root key file that was replaced in a folder that can't be synced may come back
// after a power cut: the destruction is not certified before it is sure, and what
// lives goes on.
func TestDestructionIsNotCertifiedBeforeTheFolderIsSynced(t *testing.T) {
	certified := 0
	for syncs := range 12 {
		h := build(t)
		dead, alive := h.owner(), h.owner()
		deadBox, aliveBox := h.field(dead), h.field(alive)
		left := 1 << 30
		holder, err := OpenFileHolderOn(unsyncedFiles{osFiles{}, &left}, h.root, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.holders = []Holder{holder}
		d := Destruction{Owners: []Owner{dead}}
		left = syncs
		rot, err := h.Destroy(t.Context(), d)
		if err == nil {
			certified++
		} else if !errors.Is(err, errFault) || rot.To != 0 {
			t.Errorf("%d syncs: %+v, %v", syncs, rot, err)
		}
		if !h.opens(alive, aliveBox) {
			t.Errorf("%d syncs: a living owner lost his key", syncs)
		}
		left = 1 << 30
		if rot, err = h.Destroy(t.Context(), d); err != nil || len(rot.Holders) != 1 {
			t.Errorf("%d syncs: the next try: %+v, %v", syncs, rot, err)
		}
		for range 2 {
			if h.opens(dead, deadBox) || !h.opens(alive, aliveBox) {
				t.Errorf("%d syncs: after the next try", syncs)
			}
			h.reopen()
		}
	}
	if certified == 0 || certified == 12 {
		t.Errorf("%d of 12 were certified", certified)
	}
}
