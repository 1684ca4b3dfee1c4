package vault

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Reissued key lists lie in the keyring's place too, a file for each rotation that
// had some: an older catalog has them under owner keys that died in it. Of a list
// that was issued again, only the last time counts.

const listsPrefix = "lists-"

func listsName(n uint64) string { return fmt.Sprintf("%s%020d", listsPrefix, n) }

// The file, version 1; docs/format/keyring.md draws it.
const (
	listsMagic = "HFKL\x01"
	listsHead  = len(listsMagic) + 16 + 4
)

func encodeLists(ring [16]byte, rows []listRow) []byte {
	b := append([]byte(listsMagic), ring[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows)))
	for _, r := range rows {
		b = append(b, r.owner[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(r.bucket))
		b = append(b, r.ownerKey[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.box)))
		b = append(b, r.box...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseLists(ring [16]byte, b []byte) (rows []listRow, err error) {
	damaged := holdfast.Errorf(holdfast.Invalid, "the keyring's reissued lists are damaged")
	if len(b) < listsHead+4 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, damaged
	}
	r := reader{b: b[:len(b)-4]}
	if magic := r.take(len(listsMagic)); string(magic) != listsMagic {
		return nil, damaged
	}
	if [16]byte(r.take(16)) != ring {
		return nil, holdfast.Errorf(holdfast.Conflict, "reissued lists of another keyring lie here")
	}
	for range r.u32() {
		var l listRow
		copy(l.owner[:], r.take(16))
		l.bucket = seal.Bucket(r.u64())
		copy(l.ownerKey[:], r.take(16))
		l.box = r.take(int(r.u32()))
		if r.short {
			return nil, damaged
		}
		rows = append(rows, l)
	}
	if len(r.b) > 0 {
		return nil, damaged
	}
	return rows, nil
}

// keptLists reads the reissued lists in a place whose owner keys are in force.
func (r *keyring) keptLists(place Place) (rows []listRow, files []string, err error) {
	names, err := place.List()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, listsPrefix) || name > listsName(r.generation) {
			continue
		}
		b, err := place.Read(name)
		if err != nil {
			return nil, nil, err
		}
		all, err := parseLists(r.id, b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", where(place, name), err)
		}
		for _, l := range all {
			_, id, err := r.keyID(place, l.owner)
			if err != nil {
				return nil, nil, err
			}
			if id == l.ownerKey {
				rows = append(rows, l)
			}
		}
		files = append(files, name)
	}
	return rows, files, nil
}

// keyID returns the id of an owner's key, false and zero for one that has none.
func (r *keyring) keyID(place Place, o Owner) (bool, seal.KeyID, error) {
	at, ok := r.at[o]
	if !ok {
		return false, seal.KeyID{}, nil
	}
	var b [entrySize]byte
	if err := place.ReadAt(r.pages[at.page()].name(), b[:], at.offset()); err != nil {
		return false, seal.KeyID{}, fmt.Errorf("read owner key: %w", err)
	}
	e, ok := parseEntry(b[:])
	if !ok || e.owner != o {
		return false, seal.KeyID{}, holdfast.Errorf(holdfast.Internal, "%s is damaged at offset %d", where(place, r.pages[at.page()].name()), at.offset())
	}
	return true, e.id, nil
}

// mergeAt is how many files of reissued lists are made one.
const mergeAt = 8

// mergeLists puts the reissued lists that count into one file, when there are many.
func (v *Vault) mergeLists() error {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	v.adding.Lock()
	defer v.adding.Unlock()
	names, err := v.place.List()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, listsPrefix) })
	if len(names) < mergeAt {
		return nil
	}
	rows, files, err := v.ring.keptLists(v.place)
	if err != nil || len(files) == 0 {
		return err
	}
	into := slices.Max(files)
	if err := v.place.Write(into, encodeLists(v.ring.id, rows)); err != nil {
		return err
	}
	v.copies.dirty()
	return v.place.Remove(slices.DeleteFunc(files, func(n string) bool { return n == into })...)
}

// adopt takes the keyring for that of a catalog that was put back to an earlier
// state: what was issued anew since is put in, what is under keys that died since
// goes.
func (v *Vault) adopt(ctx context.Context) error {
	rows, _, err := v.ring.keptLists(v.place)
	if err != nil {
		return fmt.Errorf("adopt keyring: %w", err)
	}
	type named struct {
		owner Owner
		key   seal.KeyID
	}
	var stale []named
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, `SELECT DISTINCT owner, owner_key FROM key_list`)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var o []byte
			var n named
			if err := q.Scan(&o, &n.key); err != nil {
				return err
			}
			copy(n.owner[:], o)
			_, id, err := v.ring.keyID(v.place, n.owner)
			if err != nil {
				return err
			}
			if id != n.key {
				stale = append(stale, n)
			}
		}
		return q.Err()
	})
	if err != nil {
		return fmt.Errorf("adopt keyring: %w", err)
	}
	err = v.db.Write(ctx, func(tx *sql.Tx) error {
		for _, n := range stale {
			if _, err := tx.ExecContext(ctx, `DELETE FROM key_list WHERE owner = $1 AND owner_key = $2`, n.owner[:], n.key); err != nil {
				return err
			}
		}
		for _, r := range rows {
			if _, err := tx.ExecContext(ctx, `INSERT INTO key_list (owner, bucket, owner_key, box_sealed) VALUES ($1, $2, $3, $4)
				ON CONFLICT (owner, bucket, owner_key) DO NOTHING`, r.owner[:], int64(r.bucket), r.ownerKey, r.box); err != nil {
				return err
			}
		}
		return writeEntries(ctx, tx, v.ring.generation, len(v.ring.at))
	})
	if err != nil {
		return fmt.Errorf("adopt keyring: %w", err)
	}
	return nil
}
