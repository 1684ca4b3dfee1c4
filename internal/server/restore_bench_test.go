package server

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// BenchmarkRestore restores, and drills, a hub of a million readings of 20 devices.
func BenchmarkRestore(b *testing.B) {
	h := newHouse(b)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	to, err := backup.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Now().Add(-48 * time.Hour)
	for n := range 20 {
		d := h.device(h.person(fmt.Sprint("person ", n)).Party, fmt.Sprint("device ", n))
		for part := range 50 {
			samples := make([]holdfast.Sample, 1000)
			for i := range samples {
				samples[i] = number("noise", at.Add(time.Duration(part*1000+i)*time.Second), r.NormFloat64())
			}
			h.mustSend(d, samples...)
		}
	}
	dir := filepath.Join(b.TempDir(), "shelf")
	f, err := backup.OpenFolder(dir)
	if err != nil {
		b.Fatal(err)
	}
	taken, err := backup.Take(b.Context(), ownSource{h.Server}, f, to, backup.TakeOptions{})
	if err != nil {
		b.Fatal(err)
	}
	f.Close()
	h.halt()
	for name, do := range map[string]func(RestoreOptions) (Restored, error){
		"restore": func(o RestoreOptions) (Restored, error) {
			return Restore(b.Context(), Config{Data: filepath.Join(b.TempDir(), "new"), RootKey: h.rootKey}, o)
		},
		"drill": func(o RestoreOptions) (Restored, error) {
			return Drill(b.Context(), Config{Data: b.TempDir(), RootKey: h.rootKey}, o)
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(taken.Statement.Bytes)
			b.ReportAllocs()
			for b.Loop() {
				from, err := backup.ReadFolder(dir)
				if err != nil {
					b.Fatal(err)
				}
				got, err := do(RestoreOptions{From: from, Identities: []age.Identity{id}, Keyring: filepath.Join(h.dir, keyringDir)})
				if err != nil || got.Readings != 1_000_000 || len(got.Different) > 0 {
					b.Fatalf("%+v, %v", got, err)
				}
			}
		})
	}
}
