package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/bundle"
)

type exportCmd struct {
	Party string `arg:"" help:"A name or an id: your own."`
	Dir   string `arg:"" help:"A new or empty folder." type:"path"`
	hubFlags
}

func (*exportCmd) Help() string {
	return `Takes everything of a party along: readings in Parquet, all else in NDJSON, with checksums and the hub's signature. An owner does so with his own
credential; the operating organisation's data are its administrators'.

Example:
  holdfast export "Ada Lovelace" ada --token my.token --hub https://HOST:8443
  holdfast verify ada`
}

func (c *exportCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	folder, err := archive.NewFolder(c.Dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	body, _, err := hub.Stream(a.ctx, http.MethodPost, "/v1/exports", nil, map[string]string{"party": c.Party})
	if err != nil {
		return errors.Join(err, removeIfEmpty(c.Dir))
	}
	defer body.Close()
	sink := &progress{to: folder, out: a.stderr}
	err = archive.Untar(a.ctx, body, sink)
	if err == nil {
		// What follows the last file is of no interest, but that it came whole is.
		_, err = io.Copy(io.Discard, body)
	}
	if sink.files > 0 && isTerminal(a.stderr) {
		fmt.Fprintln(a.stderr)
	}
	if err != nil {
		return fmt.Errorf("the export broke off, %s is not whole: %w", c.Dir, err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, bundle.TagManifestName)); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "the export broke off, %s is not whole", c.Dir)
	}
	fmt.Fprintf(a.stdout, "%s, %d bytes in %s. To check them, without a hub:\n\n  holdfast verify %s\n", many(sink.files, "file"), sink.bytes, c.Dir, c.Dir)
	return nil
}

// removeIfEmpty takes away the folder of an export that never began.
func removeIfEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		return err
	}
	return os.Remove(dir)
}

// progress says how far an export has come.
type progress struct {
	to    archive.Sink
	out   io.Writer
	files int
	bytes int64
}

func (p *progress) Put(ctx context.Context, name string, content []byte) error {
	if err := p.to.Put(ctx, name, content); err != nil {
		return err
	}
	p.files++
	p.bytes += int64(len(content))
	if isTerminal(p.out) {
		fmt.Fprintf(p.out, "\r%s, %d bytes", many(p.files, "file"), p.bytes)
	}
	return nil
}
