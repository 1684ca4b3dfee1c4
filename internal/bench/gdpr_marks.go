package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// MarksIn counts those of the keys whose mark lies in some file under a folder, as
// somebody who got the disk would look for them.
func MarksIn(dir string, keys map[int]bool) (int, error) {
	found := map[int]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		for {
			_, after, ok := bytes.Cut(text, []byte(RecordPrefix))
			if !ok {
				return nil
			}
			text = after
			if len(text) < 7 || text[6] != ':' {
				continue
			}
			if key, err := strconv.Atoi(string(text[:6])); err == nil && keys[key] {
				found[key] = true
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("look for deleted records: %w", err)
	}
	return len(found), nil
}

// ignoreGone forgives a file that its server removed meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
