package grant

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Rule says how long readings of a category are kept for a purpose, in place of what
// the purpose says.
type Rule struct {
	Category string           // IRI; "": every category, and streams without
	Purpose  holdfast.Purpose // "": every purpose
	Days     int
}

type ruleKey struct {
	category string
	purpose  holdfast.Purpose
}

type ruleInfo struct {
	Category string                `json:"category,omitempty"`
	Purpose  holdfast.Purpose      `json:"purpose,omitempty"`
	Days     int                   `json:"days"`
	By       holdfast.CredentialID `json:"by"`
}

const (
	maxRules    = 10_000
	maxCategory = 512 // bytes of its IRI
)

// Collected is what of a stream says how long its readings are kept.
type Collected struct {
	Category string
	Purposes []holdfast.Purpose
	Days     int // its own limit; 0: none
}

// SetRule sets or replaces a rule. It counts at once, for what is stored too.
func (r *Register) SetRule(ctx context.Context, by holdfast.CredentialID, rule Rule) error {
	switch {
	case rule.Category == "" && rule.Purpose == "":
		return holdfast.Errorf(holdfast.Invalid, "a rule names a category, a purpose or both")
	case rule.Days < 1 || rule.Days > maxRetentionDays:
		return holdfast.Errorf(holdfast.Invalid, "a rule keeps readings for 1 to %d days", maxRetentionDays)
	case len(rule.Category) > maxCategory:
		return holdfast.Errorf(holdfast.Invalid, "a category is an IRI of at most %d bytes", maxCategory)
	case rule.Purpose != "" && !r.Live(ctx, rule.Purpose):
		return holdfast.Errorf(holdfast.Invalid, "the rule's purpose does not exist or has ended")
	}
	return r.writeRule(ctx, by, rule, ruleSet, func(ctx context.Context, tx *sql.Tx, hash, box []byte) error {
		var have int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM retention_rule`).Scan(&have); err != nil {
			return err
		}
		if have >= maxRules {
			return holdfast.Errorf(holdfast.TooLarge, "a hub has at most %d rules", maxRules)
		}
		return putRule(ctx, tx, hash, box)
	})
}

// What becomes of a rule, in take-backs and on record.
const (
	ruleSet   = "set"
	ruleEnded = "ended"
)

func putRule(ctx context.Context, tx *sql.Tx, hash, box []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO retention_rule (rule_hash, info_sealed) VALUES ($1, $2)
		ON CONFLICT (rule_hash) DO UPDATE SET info_sealed = excluded.info_sealed`, hash, box)
	return err
}

func dropRule(ctx context.Context, tx *sql.Tx, hash []byte) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM retention_rule WHERE rule_hash = $1`, hash)
	return err
}

// DropRule takes a rule back: what the purpose says holds again, for what is still
// there.
func (r *Register) DropRule(ctx context.Context, by holdfast.CredentialID, category string, purpose holdfast.Purpose) error {
	days, ok := (*r.rules.Load())[ruleKey{category, purpose}]
	if !ok {
		return holdfast.Errorf(holdfast.NotFound, "there is no such rule")
	}
	return r.writeRule(ctx, by, Rule{category, purpose, days}, ruleEnded, func(ctx context.Context, tx *sql.Tx, hash, _ []byte) error {
		return dropRule(ctx, tx, hash)
	})
}

func (r *Register) writeRule(ctx context.Context, by holdfast.CredentialID, rule Rule, state string, change func(ctx context.Context, tx *sql.Tx, hash, box []byte) error) error {
	hash, err := r.keys.Hash(ctx, "retention rule", string(rule.Purpose)+"\x00"+rule.Category)
	if err != nil {
		return err
	}
	info := ruleInfo{rule.Category, rule.Purpose, rule.Days, by}
	box, err := r.seal(ctx, vault.Hub, "retention_rule", hash, info)
	if err != nil {
		return err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if err := change(ctx, tx, hash, box); err != nil {
			return err
		}
		back := ledger.TakeBack{Kind: ledger.RetentionChange, Hash: hash, State: state}
		if state == ruleSet {
			back.Box = box
		}
		if err := ledger.AddTakeBacks(ctx, tx, back); err != nil {
			return err
		}
		_, err := r.ledger.Append(ctx, tx, vault.Hub, "retention rule "+state, info)
		return err
	})
	if err != nil {
		return err
	}
	return r.loadRules(ctx)
}

func (r *Register) loadRules(ctx context.Context) error {
	type row struct{ hash, box []byte }
	rows, err := catalog.Rows(ctx, r.db, func(q *sql.Rows) (w row, err error) {
		return w, q.Scan(&w.hash, &w.box)
	}, `SELECT rule_hash, info_sealed FROM retention_rule`)
	if err != nil {
		return err
	}
	all := map[ruleKey]int{}
	for _, w := range rows {
		var i ruleInfo
		if err := r.open(ctx, vault.Hub, "retention_rule", w.hash, w.box, &i); err != nil {
			return err
		}
		all[ruleKey{i.Category, i.Purpose}] = i.Days
	}
	r.rules.Store(&all)
	return nil
}

// Rules returns the rules by purpose and category.
func (r *Register) Rules() []Rule {
	all := *r.rules.Load()
	out := make([]Rule, 0, len(all))
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b ruleKey) int {
		return cmp.Or(cmp.Compare(a.purpose, b.purpose), cmp.Compare(a.category, b.category))
	}) {
		out = append(out, Rule{k.category, k.purpose, all[k]})
	}
	return out
}

// days returns how long a purpose keeps readings of a category; 0: as long as it
// lives. Of the rules, the one that says both is the closest, then that of the purpose.
func (p *Purpose) days(rules map[ruleKey]int, category string) int {
	if len(rules) > 0 {
		for _, k := range [...]ruleKey{{category, p.Name}, {"", p.Name}, {category, ""}} {
			if days, ok := rules[k]; ok && k != (ruleKey{}) {
				return days
			}
		}
	}
	return p.RetentionDays
}

// KeptFor returns for how many days from arrival a purpose keeps readings of a category;
// 0: as long as it lives.
func (r *Register) KeptFor(name holdfast.Purpose, category string) int {
	p := (*r.purposes.Load())[name]
	p.Name = name
	return p.days(*r.rules.Load(), category)
}

// Forever is the life of readings that no limit is set to.
const Forever = math.MaxInt32

// Life returns for how many days from arrival readings are kept: the longest that
// any live purpose says, bounded by the stream's own limit; 0 without a live
// purpose. It reads memory only.
func (r *Register) Life(c *Collected) (days int) {
	return r.life(c, time.Time{})
}

// lastLife is Life for what destroys keys: a purpose that has ended counts as long as
// it may be revived.
func (r *Register) lastLife(c *Collected, now time.Time) int {
	return r.life(c, now.Add(-r.grace))
}

func (r *Register) revivable(p *Purpose, now time.Time) bool {
	return p.Ended.IsZero() || p.Ended.After(now.Add(-r.grace))
}

// life is Life if purposes count that ended after a moment; zero: those that live.
func (r *Register) life(c *Collected, ended time.Time) (days int) {
	purposes, rules := *r.purposes.Load(), *r.rules.Load()
	for _, name := range c.Purposes {
		p, ok := purposes[name]
		if !ok || !p.Ended.IsZero() && (ended.IsZero() || !p.Ended.After(ended)) {
			continue
		}
		d := p.days(rules, c.Category)
		if d == 0 {
			d = Forever
		}
		days = max(days, d)
	}
	if c.Days > 0 {
		days = min(days, c.Days)
	}
	return days
}

// Since returns the arrival, ns since 1970, before which readings have expired and
// are shown to nobody; 0: none has. math.MaxInt64: all have.
func (r *Register) Since(c *Collected, now time.Time) int64 { return since(r.Life(c), now) }

// DestroyBefore is Since for the keys: never later.
func (r *Register) DestroyBefore(c *Collected, now time.Time) int64 {
	return since(r.lastLife(c, now), now)
}

func since(days int, now time.Time) int64 {
	switch days {
	case Forever:
		return 0
	case 0:
		return math.MaxInt64
	}
	return max(0, now.Add(-time.Duration(days)*24*time.Hour).UnixNano())
}

// Daily reports whether what comes in now is to be sealed under a key for the day,
// since a key for the month would outlive it by too much.
func (r *Register) Daily(c *Collected) bool { return r.Life(c) <= seal.DailyDays }

// RevivePurpose takes back the end of a purpose, as long as nothing was destroyed
// for it yet.
func (r *Register) RevivePurpose(ctx context.Context, by holdfast.CredentialID, name holdfast.Purpose) error {
	p, err := r.Purpose(ctx, name)
	switch {
	case err != nil:
		return err
	case p.Ended.IsZero():
		return holdfast.Errorf(holdfast.Conflict, "the purpose has not ended")
	case !r.revivable(&p, r.now()):
		return holdfast.Errorf(holdfast.Conflict, "the purpose ended more than %s ago: data without another may be destroyed already; add a new purpose", r.grace)
	}
	p.Ended = time.Time{}
	return r.writePurpose(ctx, by, p, "purpose revived", `UPDATE purpose SET state = $2, info_sealed = $3 WHERE name_hash = $1 AND state = 'ended'`)
}
