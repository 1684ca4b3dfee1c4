package erasure

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// certificateHeader is the first line of a certificate's text, scopeHeader that of
// the part behind its signature, which opens the commitment to the scope.
const (
	certificateHeader = "holdfast erasure certificate 2"
	scopeHeader       = "holdfast erasure scope 2"
)

// Certificate says what an erasure destroyed, when and how. What is signed names
// keys and times only; whose data they were, and which, is a commitment that the
// part behind the signature opens. Without that part it can be shown to anybody.
type Certificate struct {
	Version int    `json:"-"`   // 1 or 2
	Hub     string `json:"hub"` // origin of the ledger
	// Issue counts the certificates of one erasure from 1: a later one knows more, and
	// names the one before by the hash of what was signed.
	Issue      int    `json:"issue"`
	Supersedes string `json:"supersedes,omitempty"`
	// Commitment is SHA-256(salt ‖ what Opened says).
	Commitment []byte      `json:"scope_commitment"`
	InPart     bool        `json:"in_part,omitempty"` // of assignments that live on
	AskedBy    string      `json:"asked_by"`
	Asked      time.Time   `json:"asked"`
	Refused    time.Time   `json:"refused"`
	Destroyed  Destruction `json:"keys_destroyed"`
	Escrow     Escrow      `json:"escrow,omitzero"`
	// Purged is when every place had removed the ciphertext.
	Purged time.Time `json:"ciphertext_purged"`
	// BackupsExpire is when the last backup ends that may hold ciphertext of then;
	// zero: the hub knows of none.
	BackupsExpire time.Time `json:"backups_expire,omitzero"`
	// Told is how many recipients the erased data had, and how many of them have been
	// told; absent: the hub does not say.
	Told *Told `json:"recipients,omitempty"`
	// Kept is why something that was asked for is not covered: holds keep it.
	Kept []grant.HoldKind `json:"kept,omitempty"`
	// Witnesses is how many witnesses this hub asks to cosign; 0: none.
	Witnesses int `json:"witnesses,omitempty"`
	// Limits says in words what is not covered.
	Limits []string     `json:"limits"`
	Ledger ledger.Proof `json:"ledger"`

	Opened *Opening `json:"-"` // nil: the part behind the signature was taken off
}

// Destruction is the part of a certificate about keys.
type Destruction struct {
	At         time.Time    `json:"at"`
	From       uint64       `json:"root_key_destroyed"`
	To         uint64       `json:"root_key_in_force"`
	OwnerKeys  []seal.KeyID `json:"owner_keys"`
	RecordKeys []seal.KeyID `json:"record_keys"`
	Holders    []Holder     `json:"holders"`
	Late       []string     `json:"copies_late,omitempty"` // of the keyring, which had not been written yet
	Grade      vault.Grade  `json:"grade"`                 // the weakest holder's
}

// Holder is what a certificate says of one holder of the root key. The states are
// those of package vault.
type Holder struct {
	Holder   string      `json:"holder"`
	Kind     string      `json:"kind,omitempty"`
	Grade    vault.Grade `json:"grade"`
	Vouched  string      `json:"vouched,omitempty"` // who answers for the grade
	State    string      `json:"state"`
	At       time.Time   `json:"at,omitzero"`
	Evidence []byte      `json:"evidence,omitempty"`
}

// Escrow is how recovery shares of the root key stand, of which K of N open it.
type Escrow struct {
	State string   `json:"state"`           // none, pending, destroyed
	Names []string `json:"names,omitempty"` // who has not confirmed yet
	N     int      `json:"n,omitempty"`
	K     int      `json:"k,omitempty"`
	// Vouched are those of whom others say that their shares are destroyed, and who.
	Vouched []string `json:"vouched,omitempty"`
}

// States of recovery shares.
const (
	EscrowNone      = "none"
	EscrowPending   = "pending"
	EscrowDestroyed = "destroyed" // so many have said so that the others can't open it
)

// Told is how many recipients there were, and how many were told of the erasure.
type Told struct {
	Recipients int `json:"recipients"`
	Told       int `json:"told"`
}

// Opening is what a certificate commits to: whose data, and which. It names ids
// only.
type Opening struct {
	Erasure holdfast.ErasureID `json:"erasure"`
	Party   holdfast.PartyID   `json:"party"`
	Scope   Scope              `json:"scope"`
	Kept    []Kept             `json:"kept,omitempty"`
}

func (o *Opening) inPart() bool {
	return len(o.Scope.Streams) > 0 || o.Scope.From != nil || o.Scope.Month != ""
}

// saltSize is that of the salt of a commitment.
const saltSize = 32

// commit returns the commitment to an opening as it is written, a line of JSON.
func commit(salt, line []byte) []byte {
	sum := sha256.Sum256(slices.Concat(salt, line))
	return sum[:]
}

// pending says whose word is missing, deal by deal.
func (e Escrow) pending() (out []string) {
	var deals []string
	names := map[string][]string{}
	for _, name := range e.Names {
		who, deal, _ := strings.Cut(strings.TrimSuffix(name, ")"), " (deal ")
		if !slices.Contains(deals, deal) {
			deals = append(deals, deal)
		}
		names[deal] = append(names[deal], who)
	}
	for _, deal := range deals {
		of := "recovery shares"
		if deal != "" {
			of = "the shares of deal " + deal
		}
		out = append(out, fmt.Sprintf("pending escrow: %s, which may open the root key that was destroyed, are not confirmed as destroyed by %s", of, strings.Join(names[deal], ", ")))
	}
	return out
}

// Pending says in words what a later issue of the certificate may still know.
func (c *Certificate) Pending() (out []string) {
	for _, h := range c.Destroyed.Holders {
		if h.State == vault.HolderPending {
			out = append(out, fmt.Sprintf("the holder %s has not shown that it destroyed the root key", h.Holder))
		}
	}
	for _, name := range c.Destroyed.Late {
		out = append(out, fmt.Sprintf("the copy %s of the keyring has not been brought up to date; what it has opens nothing", name))
	}
	if c.Escrow.State == EscrowPending {
		out = append(out, c.Escrow.pending()...)
	}
	if n := cosignatures(c.Ledger.Checkpoint); n < c.Witnesses {
		out = append(out, fmt.Sprintf("%d of the %d witnesses that this hub asks have cosigned the ledger with this entry", n, c.Witnesses))
	}
	return out
}

// cosignatures counts the lines under a checkpoint beside the log's own.
func cosignatures(signed string) int { return max(0, strings.Count(signed, "\n— ")-1) }

// reasons are those for which something was kept, each once.
func reasons(kept []Kept) (out []grant.HoldKind) {
	for _, k := range kept {
		if !slices.Contains(out, k.Why) {
			out = append(out, k.Why)
		}
	}
	slices.Sort(out)
	return out
}

// opening returns what the certificate of an erasure commits to.
func (e *Erasure) opening() (line []byte, err error) {
	if line, err = json.Marshal(Opening{Erasure: e.ID, Party: e.Party, Scope: e.Scope, Kept: e.Kept}); err != nil {
		return nil, fmt.Errorf("encode scope: %w", err)
	}
	return line, nil
}

// certify signs the certificate of an erasure, and puts the opening of its scope
// behind.
func (g *Gate) certify(e Erasure, p ledger.Proof) ([]byte, error) {
	line, err := e.opening()
	if err != nil {
		return nil, err
	}
	c := Certificate{
		Hub: g.Ledger.Origin(), Issue: len(e.Earlier) + 1, Commitment: commit(e.Salt, line), InPart: e.inPart(),
		AskedBy: e.By, Asked: e.AskedAt, Refused: e.RefusedAt,
		Destroyed: Destruction{At: e.KeysDeadAt, From: e.From, To: e.To, OwnerKeys: e.OwnerKeys, RecordKeys: e.RecordKeys,
			Holders: holders(e.Holders), Late: e.Late},
		Escrow: e.Escrow, Purged: e.PurgedAt, BackupsExpire: e.BackupsExpire, Told: e.Told, Kept: reasons(e.Kept),
		Witnesses: g.Ledger.Quorum(), Ledger: p,
	}
	if c.Escrow.State == "" {
		c.Escrow.State = EscrowNone
	}
	c.Destroyed.Grade = weakest(c.Destroyed.Holders)
	c.Limits = c.limits()
	if n := len(e.Earlier); n > 0 {
		c.Supersedes = signedHash(e.Earlier[n-1])
	}
	body, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	signed, err := g.Ledger.Sign(certificateHeader + "\n" + string(body) + "\n")
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(signed, "\n%s\n%s\n%s\n", scopeHeader, base64.StdEncoding.EncodeToString(e.Salt), line), nil
}

// signedHash names a certificate by what of it is signed, with the signature.
func signedHash(certificate []byte) string {
	sum := sha256.Sum256(Redact(certificate))
	return hex.EncodeToString(sum[:])
}

func holders(all []vault.HolderEvidence) []Holder {
	out := make([]Holder, len(all))
	for i, h := range all {
		out[i] = Holder{Holder: h.Holder, Kind: h.Kind, Grade: h.Grade, Vouched: h.Vouched, State: cmp.Or(h.State, vault.HolderDestroyed), At: h.At, Evidence: h.Evidence}
	}
	return out
}

// weakest is the weakest of the holders' grades; with none known, the weakest there
// is.
func weakest(holders []Holder) vault.Grade {
	if len(holders) == 0 || slices.ContainsFunc(holders, func(h Holder) bool { return h.Grade != vault.Purge }) {
		return vault.Clear
	}
	return vault.Purge
}

func (c *Certificate) limits() []string {
	out := []string{
		"copies that recipients, exports and backups of other systems hold are not covered",
		"that nobody made a secret copy of the root key outside its holders can't be proved",
	}
	if c.Destroyed.Grade == vault.Clear {
		out = append(out, "of at least one holder the root key was only overwritten: storage that keeps old blocks may still hold it (NIST SP 800-88: clear, not purge)")
	}
	if c.InPart {
		out = append(out, "the name of a stream erased in part of a living assignment was deleted, its key lives on with the assignment")
	}
	if len(c.Kept) > 0 {
		out = append(out, "of what was asked for, something was not erased: a claim at law, the law or the owner's restriction keeps it")
	}
	return out
}

// IsCertificate reports whether b looks like a certificate.
func IsCertificate(b []byte) bool {
	return bytes.HasPrefix(b, []byte(certificateHeader+"\n")) || bytes.HasPrefix(b, []byte(certificateHeader1+"\n"))
}

// behind is what stands between the signed part and the opening of the scope.
const behind = "\n" + scopeHeader + "\n"

// Redact returns the part of a certificate that is signed, without the opening of
// its scope: what it proves stays, whose data it was about is not told.
func Redact(certificate []byte) []byte {
	if at := bytes.Index(certificate, []byte("\n"+behind)); at >= 0 {
		return certificate[:at+1]
	}
	return certificate
}

var errCertificate = holdfast.Errorf(holdfast.Invalid, "the certificate can't be read: it was altered, or is of a newer version")

// VerifyCertificate checks a certificate without a server: its signature, the
// ledger proof in it, that the ledger's entry says the same, and, if the opening of
// its scope is there, that it is the one. trusted is the hub's verifier key as the
// reader got it elsewhere; without it the certificate is only shown to agree with
// itself. The newlines at the end count like every byte; where they alone are wrong,
// the error says so, for programs that copy text add and remove them.
func VerifyCertificate(certificate []byte, trusted string) (Certificate, error) {
	ended := slices.Concat(bytes.TrimRight(certificate, "\n"), []byte("\n"))
	c, err := verify(certificate, trusted)
	if err == nil || len(ended) == len(certificate) {
		return c, err
	}
	if _, other := verify(ended, trusted); other != nil {
		return Certificate{}, err
	}
	if len(ended) > len(certificate) {
		return Certificate{}, holdfast.Errorf(holdfast.Invalid, "the newline at the end of the certificate is missing; with it, it verifies")
	}
	return Certificate{}, holdfast.Errorf(holdfast.Invalid, "the certificate ends with an empty line that does not belong there; without it, it verifies")
}

func verify(certificate []byte, trusted string) (Certificate, error) {
	signed := Redact(certificate)
	text, _, ok := strings.Cut(string(signed), "\n\n— ")
	header, body, _ := strings.Cut(text, "\n")
	if !ok || header != certificateHeader && header != certificateHeader1 {
		return Certificate{}, holdfast.Errorf(holdfast.Invalid, "not an erasure certificate of a version that is known")
	}
	var c Certificate
	var err error
	if header == certificateHeader1 {
		c, err = read1(body)
	} else if err = strictly(body, &c); err == nil {
		c.Version = 2
	}
	if err != nil {
		return Certificate{}, errCertificate
	}
	key := trusted
	if key == "" {
		key = c.Ledger.Verifier
	}
	if err := checkSigned(signed, text+"\n", c.Hub, key); err != nil {
		return Certificate{}, err
	}
	event, err := c.Ledger.Check(key)
	if err != nil {
		return Certificate{}, fmt.Errorf("check ledger proof: %w", err)
	}
	if event.Kind != ledger.KindErasure || c.Version == 1 && !c.says1(event.Data) || c.Version == 2 && !c.says(event.Data) {
		return Certificate{}, holdfast.Errorf(holdfast.Invalid, "the ledger's entry is not of this erasure")
	}
	if c.Destroyed.Grade != weakest(c.Destroyed.Holders) {
		return Certificate{}, holdfast.Errorf(holdfast.Invalid, "the certificate's grade is not that of its weakest holder")
	}
	if len(signed) < len(certificate) {
		if c.Version == 1 {
			return Certificate{}, errCertificate
		}
		return c, c.open(certificate[len(signed)+len(behind):])
	}
	return c, nil
}

// strictly decodes JSON of which every field is known.
func strictly(text string, into any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errCertificate
	}
	return nil
}

// firstName is a hub's name without the number that a renewal put behind it.
func firstName(origin string) string {
	if parts := strings.Split(origin, "/"); len(parts) > 2 {
		return strings.Join(parts[:2], "/")
	}
	return origin
}

// checkSigned checks that a note is text under one signature, of the hub's key, and
// that it is written as signing writes it: the last digit of a signature has bits
// that say nothing, and an altered one is not to pass.
func checkSigned(signed []byte, text, hub, key string) error {
	v, err := note.NewVerifier(key)
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "not a verifier key")
	}
	bad := holdfast.Errorf(holdfast.Invalid, "the certificate's signature does not verify: it was altered, or is another hub's")
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil && v.Name() != hub && firstName(v.Name()) == firstName(hub) {
		return holdfast.Errorf(holdfast.Invalid, "it does not verify under the key of %s: it says that it is by %s, another name of the same hub, which gets a new name and key when it is restored or its ledger renewed. "+
			"Nothing but the name says so here: get the public key of that name from the hub (`holdfast ledger show`) or from whoever told you of the restore, and verify with it", v.Name(), hub)
	}
	if err != nil || n.Text != text || len(n.Sigs) != 1 {
		return bad
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	if err != nil || string(signed) != text+"\n— "+n.Sigs[0].Name+" "+base64.StdEncoding.EncodeToString(raw)+"\n" {
		return bad
	}
	if v.Name() != hub {
		return holdfast.Errorf(holdfast.Invalid, "the certificate was signed by %s, not by its hub", v.Name())
	}
	return nil
}

// open checks and reads what stands behind the signature.
func (c *Certificate) open(text []byte) error {
	bad := holdfast.Errorf(holdfast.Invalid, "the scope behind the signature is not the one that the certificate commits to")
	salt64, line, ok := strings.Cut(string(text), "\n")
	line, ended := strings.CutSuffix(line, "\n")
	salt, err := base64.StdEncoding.Strict().DecodeString(salt64)
	if !ok || !ended || err != nil || len(salt) != saltSize || base64.StdEncoding.EncodeToString(salt) != salt64 {
		return bad
	}
	if !bytes.Equal(commit(salt, []byte(line)), c.Commitment) {
		return bad
	}
	var o Opening
	if err := strictly(line, &o); err != nil {
		return errCertificate
	}
	if o.inPart() != c.InPart || !slices.Equal(reasons(o.Kept), c.Kept) {
		return holdfast.Errorf(holdfast.Invalid, "the certificate and the scope that it commits to don't agree")
	}
	c.Opened = &o
	return nil
}

// entry is what the ledger says of an erasure that is done, on the hub's record.
type entry struct {
	ledger.Covers
	OwnerKeys  []seal.KeyID `json:"owner_keys"`
	From       uint64       `json:"root_key_destroyed"`
	To         uint64       `json:"root_key_in_force"`
	Commitment []byte       `json:"scope_commitment"`
}

func (e *Erasure) entry() (entry, error) {
	line, err := e.opening()
	return entry{Covers: ledger.Covers{RecordKeys: e.RecordKeys}, OwnerKeys: e.OwnerKeys, From: e.From, To: e.To, Commitment: commit(e.Salt, line)}, err
}

// says reports whether the ledger's entry is of this erasure.
func (c *Certificate) says(data []byte) bool {
	var said entry
	d := &c.Destroyed
	return json.Unmarshal(data, &said) == nil && bytes.Equal(said.Commitment, c.Commitment) && said.From == d.From && said.To == d.To &&
		slices.Equal(said.OwnerKeys, d.OwnerKeys) && slices.Equal(said.RecordKeys, d.RecordKeys)
}
