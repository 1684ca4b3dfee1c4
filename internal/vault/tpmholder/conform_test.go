package tpmholder

import (
	"context"
	"os"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

// The steps that every holder must pass, with a swtpm.
func TestConforms(t *testing.T) {
	vaulttest.Holders(t, func(t *testing.T) conform.Subject {
		e := newEmulator(t)
		state := ""
		again := func(index uint32) func(context.Context) (vault.Holder, error) {
			o := e.options()
			o.Index = index
			if index == DefaultIndex {
				state = o.State
			}
			if err := create(t, o).Close(); err != nil {
				t.Fatal(err)
			}
			// Only one process has it at a time, so the one before has to go.
			var last *Holder
			return func(ctx context.Context) (_ vault.Holder, err error) {
				if last != nil {
					last.Close()
				}
				if last, err = Open(ctx, o); err != nil {
					return nil, err
				}
				return last, nil
			}
		}
		return conform.Subject{Open: again(DefaultIndex), Other: again(DefaultIndex + 1), Away: func() (func() error, error) {
			return func() error { return os.Rename(state+".away", state) }, os.Rename(state, state+".away")
		}}
	})
}
