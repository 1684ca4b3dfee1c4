package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A second factor is a secret that makes a code of six digits every 30 s (TOTP, RFC
// 6238). An owner's is his party's; staff have one each. A code is taken once, and
// counts for its credential for shownFor: what can't be undone may need a second try.
const (
	codeStep      = 30 // seconds
	shownFor      = 5 * time.Minute
	freeFailures  = 5 // in a row; then each one doubles the wait
	firstLock     = time.Minute
	longestLock   = time.Hour
	recoveryCodes = 10
)

// States of a factor; the numbers stand in the catalog.
const (
	factorPending   = 1
	factorConfirmed = 2
)

const factorTable = "access_factor"

func codeOptions() hotp.ValidateOpts {
	return hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}
}

// FactorChanged is the ledger's payload of "second factor added", "second factor
// removed" and "recovery code used".
type FactorChanged struct {
	By   holdfast.CredentialID `json:"by"`
	Role Role                  `json:"role"`
	Left int                   `json:"left"` // recovery codes
	At   time.Time             `json:"at"`
}

// NewFactor is a secret, shown this once. It counts when it is confirmed.
type NewFactor struct {
	Secret string // base32
	URL    string // otpauth://, for programs that make codes
}

// factor is a row of the catalog.
type factor struct {
	holder   holdfast.CredentialID // or a party's id
	party    holdfast.PartyID
	state    int
	box      []byte
	lastStep int64
	failures int
	locked   int64
}

// factorHolder is whose second factor a principal shows.
func factorHolder(p Principal) holdfast.CredentialID {
	if p.Role.staff() {
		return p.Holder
	}
	return holdfast.CredentialID(p.Party)
}

func mayHaveFactor(by Principal) error {
	if err := by.inPerson(); err != nil {
		return err
	}
	if by.Role == Program || factorHolder(by).IsZero() {
		return holdfast.Errorf(holdfast.Denied, "a second factor is a person's")
	}
	if !by.Can(ScopeWrite) {
		return errReadOnly()
	}
	return nil
}

// AddFactor makes a second factor for the caller, who has a settled credential. It
// replaces one that was not confirmed.
func (a *Access) AddFactor(ctx context.Context, by Principal) (NewFactor, error) {
	if err := errors.Join(mayHaveFactor(by), by.MustBeSettled()); err != nil {
		return NewFactor{}, err
	}
	holder := factorHolder(by)
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Holdfast", AccountName: holder.String()[:8], Period: codeStep, SecretSize: 20, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return NewFactor{}, fmt.Errorf("make second factor: %w", err)
	}
	box, err := a.vault.SealField(ctx, keeper(by.Role, by.Party), factorTable, holder[:], "secret", []byte(key.Secret()))
	if err != nil {
		return NewFactor{}, fmt.Errorf("seal second factor: %w", err)
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		var confirmed int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_factor WHERE holder = $1 AND state = $2`, holder, factorConfirmed).Scan(&confirmed); err != nil {
			return err
		}
		if confirmed > 0 {
			return holdfast.Errorf(holdfast.Conflict, "there is a second factor: remove it first")
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM access_factor WHERE holder = $1`, holder); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO access_factor (holder, party, state, secret_sealed, last_step, failures, locked_until) VALUES ($1, $2, $3, $4, 0, 0, 0)`,
			holder, by.Party, factorPending, box)
		return err
	})
	if err != nil {
		return NewFactor{}, fmt.Errorf("make second factor: %w", err)
	}
	return NewFactor{Secret: key.Secret(), URL: key.URL()}, nil
}

// ConfirmFactor takes the first code of a new factor, which counts from then on, and
// returns recovery codes: each does once what a code does, for who has lost the
// secret. They are shown this once.
func (a *Access) ConfirmFactor(ctx context.Context, by Principal, code string) ([]string, error) {
	if err := errors.Join(mayHaveFactor(by), by.MustBeSettled()); err != nil {
		return nil, err
	}
	a.codes.Lock()
	defer a.codes.Unlock()
	f, err := a.factorOf(ctx, by)
	if err != nil {
		return nil, err
	}
	if f == nil || f.state != factorPending {
		return nil, holdfast.Errorf(holdfast.Conflict, "there is no second factor to confirm")
	}
	now := a.now()
	step, err := a.checkCode(ctx, by, f, strings.TrimSpace(code), now)
	if err != nil {
		return nil, err
	}
	codes := make([]string, recoveryCodes)
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `UPDATE access_factor SET state = $1, last_step = $2, failures = 0, locked_until = 0 WHERE holder = $3 AND state = $4`,
			factorConfirmed, step, f.holder, factorPending)
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, holdfast.Errorf(holdfast.Conflict, "the second factor was replaced meanwhile"))
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM access_recovery WHERE holder = $1`, f.holder); err != nil {
			return err
		}
		for i := range codes {
			codes[i] = newRecoveryCode()
			if _, err := tx.ExecContext(ctx, `INSERT INTO access_recovery (holder, code_hash) VALUES ($1, $2)`, f.holder, hashRecovery(f.holder, codes[i])); err != nil {
				return err
			}
		}
		return a.recordFactor(ctx, tx, by, "second factor added", recoveryCodes, now)
	})
	if err != nil {
		return nil, fmt.Errorf("confirm second factor: %w", err)
	}
	return codes, nil
}

// RemoveFactor takes the caller's second factor away, with its recovery codes.
func (a *Access) RemoveFactor(ctx context.Context, by Principal) error {
	if err := errors.Join(mayHaveFactor(by), by.MustBeSettled()); err != nil {
		return err
	}
	holder := factorHolder(by)
	err := a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `DELETE FROM access_factor WHERE holder = $1`, holder)
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, errNoFactor())
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM access_recovery WHERE holder = $1`, holder); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.FactorEnded, ID: ledger.TakenID(holder)}); err != nil {
			return err
		}
		return a.recordFactor(ctx, tx, by, "second factor removed", 0, a.now())
	})
	if err != nil {
		return fmt.Errorf("remove second factor: %w", err)
	}
	return nil
}

// Factor says whether the caller has a confirmed second factor, and how many recovery
// codes are left.
func (a *Access) Factor(ctx context.Context, by Principal) (has bool, left int, err error) {
	if err := by.inPerson(); err != nil {
		return false, 0, err
	}
	f, err := a.factorOf(ctx, by)
	if err != nil || f == nil || f.state != factorConfirmed {
		return false, 0, err
	}
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_recovery WHERE holder = $1`, f.holder).Scan(&left)
	})
	if err != nil {
		return false, 0, fmt.Errorf("count recovery codes: %w", err)
	}
	return true, left, nil
}

func errNoFactor() error {
	return holdfast.Errorf(holdfast.NotFound, "there is no second factor: an older credential adds one")
}

// Show takes a code and returns who shows it, settled. A wrong one counts: after five
// in a row no code of six digits is looked at for a minute, then for two, up to an
// hour. That holds nobody up for good: it lengthens by itself for nobody, a recovery
// code passes, and what protects an owner needs no code.
func (a *Access) Show(ctx context.Context, by Principal, code string) (Principal, error) {
	if err := mayHaveFactor(by); err != nil {
		return by, err
	}
	code = strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code))
	a.codes.Lock()
	defer a.codes.Unlock()
	f, err := a.factorOf(ctx, by)
	if err != nil {
		return by, err
	}
	if f == nil || f.state != factorConfirmed {
		return by, holdfast.Errorf(holdfast.Denied, "no second factor is set up for this person: a settled credential adds one")
	}
	now := a.now()
	if len(code) == recoveryLength {
		err = a.useRecovery(ctx, by, f, code, now)
	} else {
		err = a.useCode(ctx, by, f, code, now)
	}
	if err != nil {
		return by, err
	}
	a.metrics.codes.WithLabelValues("taken").Inc()
	a.mu.Lock()
	if len(a.shown) >= maxKnown {
		clear(a.shown)
	}
	a.shown[by.Credential] = now.Add(shownFor)
	a.mu.Unlock()
	by.Settled = true
	return by, nil
}

// shownLately reports whether a second factor was shown with a credential.
func (a *Access) shownLately(id holdfast.CredentialID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.shown[id]
	if ok && !a.now().Before(until) {
		delete(a.shown, id)
		ok = false
	}
	return ok
}

// useCode takes a code of six digits, once.
func (a *Access) useCode(ctx context.Context, by Principal, f *factor, code string, now time.Time) error {
	step, err := a.checkCode(ctx, by, f, code, now)
	if err != nil {
		return err
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `UPDATE access_factor SET last_step = $1, failures = 0, locked_until = 0 WHERE holder = $2 AND state = $3 AND last_step < $1`,
			step, f.holder, factorConfirmed)
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n != 1 {
			a.metrics.codes.WithLabelValues("replayed").Inc()
			return errors.Join(err, holdfast.Errorf(holdfast.Denied, "this code was used already: wait for the next one"))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take code: %w", err)
	}
	return nil
}

// checkCode finds the time step of a code, now or one beside, and counts a wrong one.
func (a *Access) checkCode(ctx context.Context, by Principal, f *factor, code string, now time.Time) (step int64, err error) {
	if wait := time.Unix(0, f.locked).Sub(now); wait > 0 {
		a.metrics.codes.WithLabelValues("locked").Inc()
		return 0, holdfast.Errorf(holdfast.Unavailable, "too many wrong codes: try again in %s, or use a recovery code", wait.Round(time.Second))
	}
	secret, err := a.vault.OpenField(ctx, keeper(by.Role, by.Party), factorTable, f.holder[:], "secret", f.box)
	if err != nil {
		return 0, fmt.Errorf("open second factor: %w", err)
	}
	defer clear(secret)
	at := now.Unix() / codeStep
	for _, step := range []int64{at, at - 1, at + 1} {
		ok, err := hotp.ValidateCustom(code, uint64(step), string(secret), codeOptions())
		if err != nil { // not six digits
			break
		}
		if ok {
			return step, nil
		}
	}
	a.metrics.codes.WithLabelValues("wrong").Inc()
	var locked int64
	if n := f.failures + 1 - freeFailures; n >= 0 {
		locked = now.Add(min(firstLock<<min(n, 10), longestLock)).UnixNano()
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE access_factor SET failures = failures + 1, locked_until = $1 WHERE holder = $2`, locked, f.holder)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count wrong code: %w", err)
	}
	return 0, holdfast.Errorf(holdfast.Denied, "the code is wrong: is this clock right?")
}

// useRecovery takes a recovery code, once. It has 80 random bits: nobody guesses it,
// so it is not held up by who guesses codes.
func (a *Access) useRecovery(ctx context.Context, by Principal, f *factor, code string, now time.Time) error {
	err := a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `DELETE FROM access_recovery WHERE holder = $1 AND code_hash = $2`, f.holder, hashRecovery(f.holder, code))
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n != 1 {
			a.metrics.codes.WithLabelValues("wrong").Inc()
			return errors.Join(err, holdfast.Errorf(holdfast.Denied, "the recovery code is wrong or was used already"))
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.RecoveryUsed, ID: ledger.TakenID(f.holder), Hash: hashRecovery(f.holder, code)}); err != nil {
			return err
		}
		var left int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_recovery WHERE holder = $1`, f.holder).Scan(&left); err != nil {
			return err
		}
		return a.recordFactor(ctx, tx, by, "recovery code used", left, now)
	})
	if err != nil {
		return fmt.Errorf("take recovery code: %w", err)
	}
	return nil
}

func (a *Access) factorOf(ctx context.Context, by Principal) (*factor, error) {
	f := &factor{holder: factorHolder(by)}
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT party, state, secret_sealed, last_step, failures, locked_until FROM access_factor WHERE holder = $1`, f.holder).
			Scan(&f.party, &f.state, &f.box, &f.lastStep, &f.failures, &f.locked)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up second factor: %w", err)
	}
	return f, nil
}

func (a *Access) recordFactor(ctx context.Context, tx *sql.Tx, by Principal, kind string, left int, now time.Time) error {
	_, err := a.ledger.Append(ctx, tx, vault.OfParty(by.Party), kind, FactorChanged{By: by.Credential, Role: by.Role, Left: left, At: now.UTC()})
	return err
}

// recoveryLength is of a recovery code without its dashes.
const recoveryLength = 16

func newRecoveryCode() string {
	var b [10]byte
	rand.Read(b[:])
	s := base32.StdEncoding.EncodeToString(b[:])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

func hashRecovery(holder holdfast.CredentialID, code string) []byte {
	h := sha256.New()
	h.Write([]byte("holdfast recovery\x00"))
	h.Write(holder[:])
	h.Write([]byte(strings.ReplaceAll(code, "-", "")))
	return h.Sum(nil)
}
