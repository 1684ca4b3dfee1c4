// Command pack makes what goes with the binaries of a release; ./release calls it.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/packaging"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// job is one run.
type job struct {
	dist, own string
	notice    bool
	level     int // of compression
	product   packaging.Product
	cache     string // of modules
}

func run() error {
	var j job
	var seconds int64
	j.product.Name = "holdfast"
	flag.StringVar(&j.dist, "dist", "dist", "where bin/OS-ARCH/holdfast are")
	flag.StringVar(&j.own, "own", "", "a binary that runs here")
	flag.StringVar(&j.product.Version, "version", "", "of the release")
	flag.StringVar(&j.product.Commit, "commit", "", "of the release")
	flag.Int64Var(&seconds, "time", 0, "of the commit, in seconds since 1970")
	flag.BoolVar(&j.notice, "notice", false, "write NOTICE and nothing else")
	flag.IntVar(&j.level, "level", gzip.BestCompression, "of compression, 1 to 9")
	flag.Parse()
	j.product.Time = time.Unix(seconds, 0)
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return fmt.Errorf("find the module cache: %w", err)
	}
	j.cache = strings.TrimSpace(string(cache))

	if j.notice {
		return writeNotice()
	}
	binaries, err := filepath.Glob(filepath.Join(j.dist, "bin", "*", "holdfast"))
	if err != nil || len(binaries) == 0 {
		return errors.Join(err, fmt.Errorf("no binaries in %s", j.dist))
	}
	linked := map[string][]packaging.Module{}
	var all []packaging.Module
	for _, b := range binaries {
		modules, _, err := packaging.Linked(b)
		if err != nil {
			return err
		}
		for i := range modules {
			if err := modules[i].DescribeFrom(j.cache); err != nil {
				return err
			}
		}
		linked[b] = modules
		all = packaging.All(all, modules)
	}
	if err := packaging.CheckLicences(all); err != nil {
		return err
	}
	text, err := os.ReadFile("NOTICE")
	if err != nil {
		return err
	}
	notices := packaging.ParseNotice(string(text))
	if lacks := notices.Lacks(all); len(lacks) > 0 {
		return fmt.Errorf("NOTICE lacks %s: run ./release --notice", strings.Join(lacks, ", "))
	}
	return j.pack(binaries, linked)
}

// writeNotice brings NOTICE up to date.
func writeNotice() error {
	all, err := packaging.Listed(".", packaging.Platforms())
	if err != nil {
		return err
	}
	text, err := os.ReadFile("NOTICE")
	if err != nil {
		return err
	}
	return os.WriteFile("NOTICE", []byte(packaging.ParseNotice(string(text)).With(all)), 0o644)
}

func (j *job) pack(binaries []string, linked map[string][]packaging.Module) error {
	if err := j.pages(); err != nil {
		return err
	}
	var images []packaging.Image
	for _, b := range binaries {
		platform := filepath.Base(filepath.Dir(b))
		product := j.product
		product.Platform = strings.Replace(platform, "-", "/", 1)
		name := "holdfast-" + product.Version + "-" + platform
		var bom bytes.Buffer
		_, goVersion, err := packaging.Linked(b)
		if err != nil {
			return err
		}
		if err := packaging.WriteSBOM(&bom, product, b, linked[b], goVersion); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(j.dist, name+".cdx.json"), bom.Bytes(), 0o644); err != nil {
			return err
		}
		program, err := os.ReadFile(b)
		if err != nil {
			return err
		}
		if err := j.archive(name, platform, program, bom.Bytes()); err != nil {
			return err
		}
		if arch, ok := strings.CutPrefix(platform, "linux-"); ok {
			i := packaging.Image{Architecture: arch, Binary: program}
			if arch == "armv7" {
				i.Architecture, i.Variant = "arm", "v7"
			}
			images = append(images, i)
		}
	}
	if len(images) == 0 {
		return nil
	}
	return j.write("holdfast-"+j.product.Version+"-image.tar", func(w io.Writer) error { return packaging.WriteImage(w, j.product, images, j.level) })
}

// pages lets the program write its manual and completions.
func (j *job) pages() error {
	for file, args := range map[string][]string{
		"man/man1/holdfast.1": {"man"}, "bash-completion/completions/holdfast": {"completion", "bash"},
		"zsh/vendor-completions/_holdfast": {"completion", "zsh"}, "fish/vendor_completions.d/holdfast.fish": {"completion", "fish"},
	} {
		out, err := exec.Command(j.own, args...).Output()
		if err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		path := filepath.Join(j.dist, "own", "share", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, out, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) archive(name, platform string, program, bom []byte) error {
	files, err := packaging.Tree(filepath.Join(j.dist, "own", "share"), name+"/share/")
	if err != nil {
		return err
	}
	files = append(files, packaging.File{Name: name + "/holdfast", Mode: 0o755, Data: program}, packaging.File{Name: name + "/holdfast.cdx.json", Mode: 0o644, Data: bom})
	take := []string{"LICENSE", "NOTICE", "README.md", "SECURITY.md", "CHANGELOG.md"}
	if strings.HasPrefix(platform, "linux-") {
		take = append(take, "deploy/holdfast.service", "deploy/holdfast.sysusers", "deploy/holdfast.tmpfiles")
	}
	for _, f := range take {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		files = append(files, packaging.File{Name: name + "/" + f, Mode: 0o644, Data: data})
	}
	return j.write(name+".tar.gz", func(w io.Writer) error { return packaging.WriteTarGz(w, files, j.product.Time, j.level) })
}

func (j *job) write(name string, with func(io.Writer) error) (err error) {
	f, err := os.Create(filepath.Join(j.dist, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return with(f)
}
