package vault

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Fields seals single columns of the catalog under their owner's fields key, as a Vault
// does. Neither method may be called within a catalog transaction. OpenField is NotFound
// when the key has been destroyed, see Gone.
type Fields interface {
	SealField(ctx context.Context, o Owner, table string, row []byte, column string, plain []byte) ([]byte, error)
	OpenField(ctx context.Context, o Owner, table string, row []byte, column string, box []byte) ([]byte, error)
}

// SealJSON seals v as the JSON that OpenJSON reads.
func SealJSON(ctx context.Context, f Fields, o Owner, table string, row []byte, column string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write %s.%s: %w", table, column, err)
	}
	return f.SealField(ctx, o, table, row, column, plain)
}

// OpenJSON opens what SealJSON made into v.
func OpenJSON(ctx context.Context, f Fields, o Owner, table string, row []byte, column string, box []byte, v any) error {
	plain, err := f.OpenField(ctx, o, table, row, column, box)
	if err != nil {
		return err
	}
	if json.Unmarshal(plain, v) != nil {
		return fmt.Errorf("read %s.%s: it is damaged", table, column) // the parser's text could quote it
	}
	return nil
}

// Gone reports that what a row held can't be opened any more: its owner's key is
// destroyed and the row is about to follow.
func Gone(err error) bool { return holdfast.KindOf(err) == holdfast.NotFound }
