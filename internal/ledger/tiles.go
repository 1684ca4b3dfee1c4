package ledger

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// MaxTileLevel is the highest level of a tile (C2SP tlog-tiles).
const MaxTileLevel = 63

// Tile returns a tile of the published tree: width hashes of subtrees of 256^level
// leaves, from the (256 n)-th on; a full one has 256. What the published checkpoint
// does not have is NotFound.
func (l *Ledger) Tile(ctx context.Context, level int, n int64, width int) ([]byte, error) {
	size := l.head().Size
	if !within(size, level, n, width) {
		return nil, holdfast.Errorf(holdfast.NotFound, "the published tree has no such tile")
	}
	var out []byte
	err := l.db.Read(ctx, func(tx *sql.Tx) error {
		row, err := l.reader(ctx, tx, size).row(tile{level, n})
		if err != nil {
			return err
		}
		for _, h := range row[:width] {
			out = append(out, h[:]...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tile: %w", err)
	}
	return out, nil
}

// Bundle returns the leaves of the lowest tile n, each behind its length.
func (l *Ledger) Bundle(ctx context.Context, n int64, width int) ([]byte, error) {
	if !within(l.head().Size, 0, n, width) {
		return nil, holdfast.Errorf(holdfast.NotFound, "the published tree has no such entries")
	}
	var all []commitment
	err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
		all, err = l.commitments(ctx, tx, uint64(n)*tileWidth, uint64(n)*tileWidth+uint64(width))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	var out []byte
	for _, c := range all {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(c))), c[:]...)
	}
	return out, nil
}

// within reports whether a tree has a tile of this width.
func within(size uint64, level int, n int64, width int) bool {
	if level < 0 || level > MaxTileLevel || n < 0 || width < 1 || width > tileWidth || level*tileHeight >= 63 || n > 1<<50 {
		return false
	}
	return uint64(n)*tileWidth+uint64(width) <= size>>(level*tileHeight)
}
