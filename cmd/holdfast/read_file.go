package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// maxKeyFile bounds a file of keys, passphrases, tokens or certificates: a disk that
// was named by mistake is not read to its end.
const maxKeyFile = 1 << 20

// readFile reads a small file that the command line names. It may be a pipe, as
// --identity <(...) makes one: whoever waits for what is never written is let go when
// the context ends.
func readFile(ctx context.Context, what, path string) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // nothing wakes who waits for a pipe to be opened: it may stay until the program ends
		text, err := readSmall(path)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && holdfast.KindOf(r.err) == holdfast.Internal {
			return nil, fileError(what, r.err)
		}
		return r.text, r.err
	case <-ctx.Done():
		return nil, holdfast.Errorf(holdfast.Unavailable, "read %s: nothing came out of %s: %w", what, path, ctx.Err())
	}
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if errors.Is(err, syscall.EISDIR) {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is a folder: name a file", path)
	}
	if err == nil && len(text) > maxKeyFile {
		clear(text)
		return nil, holdfast.Errorf(holdfast.TooLarge, "%s has more than %s: no file of this kind has", path, sizeText(maxKeyFile))
	}
	return text, err
}

// readIdentities reads files with identities of age, as age -i reads them.
func readIdentities(ctx context.Context, files []string) (all []age.Identity, err error) {
	for _, path := range files {
		text, err := readFile(ctx, "identity", path)
		if err != nil {
			return nil, err
		}
		some, err := backup.ParseIdentities(path, text)
		clear(text)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// readBackupIdentities is readIdentities for what can't be read without one.
func readBackupIdentities(ctx context.Context, files []string) ([]age.Identity, error) {
	if len(files) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "give the age identity that opens the backup: --identity FILE")
	}
	return readIdentities(ctx, files)
}

// readRecipients takes recipients of age, and files with one on each line.
func readRecipients(ctx context.Context, texts, files []string) (backup.Recipients, error) {
	var lists []backup.RecipientList
	for _, path := range files {
		text, err := readFile(ctx, "recipients", path)
		if err != nil {
			return backup.Recipients{}, err
		}
		lists = append(lists, backup.RecipientList{Name: path, Text: text})
	}
	return backup.ParseRecipients(texts, lists)
}

// firstLine reads the first line of a file: a passphrase or a password.
func firstLine(ctx context.Context, what, path string) ([]byte, error) {
	text, err := readFile(ctx, what, path)
	if err != nil {
		return nil, usageError{err}
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if line = bytes.TrimRight(line, "\r"); len(line) == 0 {
		return nil, usagef("the %s file %s begins with an empty line", what, path)
	}
	return line, nil
}
