package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The first line of the note that says what a backup is, and its version.
const (
	statementHeader = "holdfast backup 1"
	statementFormat = "1"
)

// Where the owner keys of a backup are.
const (
	keyringFolderOnly = "data folder only"
	keyringCopied     = "copied"
)

// CopiesLate is said of a keyring whose copies all lack something.
const CopiesLate = "copies late"

// Statement is what the hub says of a backup, under its ledger's signature.
type Statement struct {
	Format  string    `json:"holdfast-backup"`
	ID      string    `json:"id"`
	Hub     string    `json:"hub"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Expires time.Time `json:"expires"`
	Program string    `json:"program"`
	Catalog int64     `json:"catalog"` // version of the catalog

	Ledger     string `json:"ledger"` // its name
	Verifier   string `json:"verifier"`
	LedgerSize uint64 `json:"ledger_size"`
	LedgerRoot string `json:"ledger_root"`
	TakeBacks  uint64 `json:"take_backs"` // number of the newest

	Generation    uint64       `json:"generation"`     // of the root key
	KeyringOwners int          `json:"keyring_owners"` // keys that the keyring had
	Owners        vault.Needed `json:"owners"`         // whose keys it needs
	Keyring       string       `json:"keyring"`        // "copied", "copies late" or "data folder only"
	KeyringCopies []string     `json:"keyring_copies,omitempty"`
	// Keys says who holds the root key and where copies of the keyring are, for a restore.
	Keys json.RawMessage `json:"keys,omitempty"`

	Streams  int   `json:"streams"`
	Chunks   int64 `json:"chunks"`
	Readings int64 `json:"readings"`

	PieceSize    int64 `json:"piece_size"`
	CatalogBytes int64 `json:"catalog_bytes"`
	Segments     int   `json:"segments"`
	Pieces       int   `json:"pieces"`
	Bytes        int64 `json:"bytes"`
	Written      int64 `json:"written"`

	List       string   `json:"list"` // SHA-256 of the list of pieces
	Key        []byte   `json:"key"`  // names and tags of pieces hang on it
	Recipients []string `json:"recipients"`
}

// ReadStatement checks a signed statement. With trusted, the verifier key that the
// reader knows of the hub, it must be signed by that; else by the one that it names,
// which is to be compared.
func ReadStatement(signed []byte, trusted string) (st Statement, err error) {
	damaged := holdfast.Errorf(holdfast.Invalid, "the backup's manifest is damaged, or none of ours")
	text, _, ok := strings.Cut(string(signed), "\n\n")
	header, body, cut := strings.Cut(text, "\n")
	if !ok || !cut {
		return st, damaged
	}
	if header != statementHeader {
		if strings.HasPrefix(header, strings.TrimSuffix(statementHeader, statementFormat)) {
			return st, holdfast.Errorf(holdfast.Conflict, "the backup was made by a newer holdfast (%s): use that one", header)
		}
		return st, damaged
	}
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		return st, damaged
	}
	if trusted == "" {
		trusted = st.Verifier
	}
	v, err := note.NewVerifier(trusted)
	if err != nil {
		return st, holdfast.Errorf(holdfast.Invalid, "not a verifier key: %w", err)
	}
	if v.Name() != st.Ledger {
		return st, holdfast.Errorf(holdfast.Conflict, "the backup is signed in the name of %s, the key is of %s", st.Ledger, v.Name())
	}
	if _, err := note.Open(signed, note.VerifierList(v)); err != nil {
		return st, holdfast.Errorf(holdfast.Invalid, "the signature of the backup's manifest does not verify")
	}
	if st.PieceSize <= 0 || st.CatalogBytes <= 0 || len(st.Key) != sha256.Size {
		return st, damaged
	}
	return st, nil
}

// Entry is a line of the list of pieces: where one is stored, and its size before
// it was encrypted.
type Entry struct {
	Kind string
	File string // NAME-TAG
	Size int64
	ID   string // of a segment: which, and what of it
}

type kindLetter struct{ kind, letter string }

// kindLetters stand in the list, in the order of the kinds.
var kindLetters = [...]kindLetter{{KindCatalog, "c"}, {KindSegment, "s"}, {KindTally, "t"}}

const listHeader = "holdfast backup pieces 1"

// listText is the list as it is stored, in the clear: it says no more than the
// folder does.
func listText(all []Entry) []byte {
	var b strings.Builder
	b.WriteString(listHeader + "\n")
	for _, e := range all {
		for _, k := range kindLetters {
			if k.kind == e.Kind {
				fmt.Fprintf(&b, "%s %s %d", k.letter, e.File, e.Size)
				if e.ID != "" {
					b.WriteString(" " + e.ID)
				}
				b.WriteString("\n")
			}
		}
	}
	return []byte(b.String())
}

// parseList reads a list line by line, and returns its digest.
func parseList(from io.Reader, each func(Entry) error) (digest string, err error) {
	bad := holdfast.Errorf(holdfast.Invalid, "the list of pieces is damaged")
	sum := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(from, sum))
	lines.Buffer(make([]byte, 0, 1024), 1024)
	if !lines.Scan() {
		return "", bad
	}
	if header := lines.Text(); header != listHeader {
		if strings.HasPrefix(header, strings.TrimSuffix(listHeader, statementFormat)) {
			return "", holdfast.Errorf(holdfast.Conflict, "the list of pieces is of a newer holdfast (%.40q): use that one", header)
		}
		return "", bad
	}
	var last Entry
	for n := 0; lines.Scan(); n++ {
		e, ok := parseEntry(lines.Text())
		// The kinds come in their order, the tally once and at the end.
		if !ok || order(e.Kind) < order(last.Kind) || last.Kind == KindTally {
			return "", bad
		}
		if n == maxPieces {
			return "", holdfast.Errorf(holdfast.TooLarge, "the list has more than %d pieces", maxPieces)
		}
		if err := each(e); err != nil {
			return "", err
		}
		last = e
	}
	if lines.Err() != nil || last.Kind != KindTally {
		return "", bad
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func order(kind string) int {
	return slices.IndexFunc(kindLetters[:], func(k kindLetter) bool { return k.kind == kind })
}

func parseEntry(line string) (e Entry, ok bool) {
	f := strings.Split(line, " ")
	if len(f) < 3 || len(f) > 4 || !isPieceName(f[1]) {
		return e, false
	}
	e.File = f[1]
	if len(f) == 4 {
		e.ID = f[3]
	}
	for _, k := range kindLetters {
		if k.letter == f[0] {
			e.Kind = k.kind
		}
	}
	var err error
	if e.Size, err = strconv.ParseInt(f[2], 10, 64); err != nil || strconv.FormatInt(e.Size, 10) != f[2] {
		return e, false
	}
	return e, soundPart(Part{Kind: e.Kind, ID: e.ID, Size: e.Size})
}

func listDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Lengths of a piece's name and tag in base32.
const (
	nameLength = 26
	tagLength  = 52
)

func isPieceName(file string) bool {
	return len(file) == nameLength+1+tagLength && file[nameLength] == '-' &&
		is32(file[:nameLength]) && is32(file[nameLength+1:])
}

// is32 reports whether a text is of the letters of base32.
func is32(text string) bool { return strings.Trim(text, letters32) == "" }
