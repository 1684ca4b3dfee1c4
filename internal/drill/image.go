package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// image is a file system in a file, which the hub lies on: what it has given back is
// still in the file unless it was overwritten.
type image struct {
	file, at string
	mounted  bool
}

// mountImage makes one. It takes root, Linux and e2fsprogs.
func mountImage(dir, at string, readings int) (*image, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("only root may mount one")
	}
	i := &image{file: filepath.Join(dir, "disk.img"), at: at}
	f, err := os.OpenFile(i.file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	size := int64(192<<20) + int64(readings)*512
	if err = f.Truncate(size); err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-F", "-E", "nodiscard", i.file}, {"mount", "-o", "loop,nodiscard", i.file, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			os.Remove(i.file)
			return nil, fmt.Errorf("%s: %w %s", c[0], err, strings.TrimSpace(string(out)))
		}
	}
	i.mounted = true
	return i, nil
}

func (i *image) unmount() error {
	if i == nil || !i.mounted {
		return nil
	}
	if out, err := exec.Command("umount", i.at).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount the drill's disk %s: %w %s", i.at, err, strings.TrimSpace(string(out)))
	}
	i.mounted = false
	return nil
}

// unmountLeft unmounts the disk of a drill that was killed.
func unmountLeft(dir string) error {
	at := filepath.Join(dir, "hub")
	outer, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	inner, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	x, ok := outer.Sys().(*syscall.Stat_t)
	y, also := inner.Sys().(*syscall.Stat_t)
	if ok && also && x.Dev != y.Dev {
		return (&image{at: at, mounted: true}).unmount()
	}
	return nil
}

func (i *image) mount() error {
	if out, err := exec.Command("mount", "-o", "loop,nodiscard", i.file, i.at).CombinedOutput(); err != nil {
		return fmt.Errorf("mount the drill's disk again: %w %s", err, strings.TrimSpace(string(out)))
	}
	i.mounted = true
	return nil
}

// searchImage looks at every block of the disk, unmounted so that all is written.
func (d *drill) searchImage(h *hunt, gone *wanted) {
	if d.image == nil {
		return // said when it could not be made
	}
	err := d.image.unmount()
	t := new(Tally)
	if err == nil {
		w := &wanted{dead: gone.dead, live: gone.live, deadKeys: h.owners}
		err = searchFile(w, d.image.file, t)
	}
	d.searched("image", "every block of the hub's disk, those that are free again too: patterns and keys", t, err)
	t = new(Tally)
	if err == nil {
		err = searchFile(&wanted{dead: h.rootWords, live: h.livingWords, deadKeys: h.root}, d.image.file, t)
	}
	d.searched("image-root-keys", "every block of the hub's disk: old root keys and what wrapped them", t, err)
	if err := d.image.mount(); err != nil {
		d.check("image-mount", "the hub's disk is there again", "", err)
	}
}

func searchFile(w *wanted, path string, t *Tally) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	t.Where = InBlocks
	err = w.stream(f, filepath.Base(path), t)
	t.Blocks = t.Bytes / blockSize
	return err
}
