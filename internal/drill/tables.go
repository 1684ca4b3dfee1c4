package drill

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// table is one of the catalog in which rows are an owner's. The drill counts rows, from
// outside; what stands in them is their keeper's.
type table struct {
	name  string
	place string // field of erasure.Places that empties it; "": rows of it stay, of ids and numbers
	where string // how his are found, with {party}, {assignments} and {devices}
}

// ofOwners lists the tables in which something is somebody's.
func ofOwners() []table {
	const party, owner, assignment, device = "party IN {party}", "owner IN {party}", "assignment IN {assignments}", "device IN {devices}"
	rules := "rule IN (" + sub("alarm_rule", "id", party) + ")"
	return []table{
		{"identity_device", "Connections", assignment},
		{"device_certificate", "Connections", device},
		{"enrolment_code", "Connections", device},
		{"access_credential", "Credentials", party},
		{"access_invitation", "Credentials", party},
		{"access_permission", "Credentials", "whose IN {party}"},
		{"access_factor", "Credentials", party},
		{"access_recovery", "Credentials", "holder IN {party}"},
		{"data_grant", "Grants", "grantor IN {party}"},
		{"disclosure", "Grants", owner},
		{"disclosure_tally", "Grants", owner},
		{"device_group", "Grants", party},
		{"hold", "Grants", party},
		{"mqtt_session", "Sessions", "assignment IN {party} OR assignment IN {assignments}"},
		{"mqtt_subscription", "Sessions", "session IN (" + sub("mqtt_session", "name", "assignment IN {party} OR assignment IN {assignments}") + ")"},
		{"command", "Twins", assignment},
		{"twin", "Twins", assignment},
		{"chunk", "Readings", assignment},
		{"outbox_webhook", "Messages", party},
		{"outbox_job", "Messages", party},
		{"outbox_about", "Messages", assignment},
		{"alarm_rule", "Alarms", party},
		{"alarm_instance", "Alarms", rules},
		{"alarm_event", "Alarms", rules},
		{"ledger_entry", "Ledger", "owner IN {party} AND length(payload_sealed) > 0"},
		{"ledger_owner", "", owner},
		{"key_list", "Custody", "owner IN {party} OR owner IN {assignments}"},
		{"party", "Custody", "id IN {party} AND info_sealed IS NOT NULL"},
		{"device", "Custody", "owner IN {party}"},
		{"assignment", "Custody", "id IN {assignments} AND info_sealed IS NOT NULL"},
		{"assignment_version", "Custody", assignment},
		{"period", "Custody", assignment},
		{"stream", "Custody", "assignment IN {assignments} AND info_sealed IS NOT NULL"},
		{"membership", "Custody", "member IN {party}"},
		{"transfer", "Custody", "seller IN {party}"},
		{"release_notice", "Custody", owner},
	}
}

func sub(table, column, where string) string {
	return "SELECT " + column + " FROM " + table + " WHERE " + where
}

// ofNobody lists the other tables, and why an owner has nothing in them.
func ofNobody() map[string]string {
	const hub, erased, ids = "the hub's own", "made by an erasure, which leaves ids and times", "ids alone"
	return map[string]string{
		"retired_key": erased, "keyring_size": hub, "rekeyed_owner": ids + ", in the middle of a rotation", "rekey": ids, "rekey_owner": ids,
		"ledger_padding": hub, "ledger_hash": hub, "ledger_checkpoint": hub, "ledger_cosignature": hub, "ledger_origin": hub, "ledger_key": hub, "take_back": erased, "take_back_batch": erased,
		"hub_authority": hub, "unit": "a thing's, whoever has it", "profile": hub, "claim_code": "of devices that are nobody's yet",
		"joint_erasure": "a household's", "joint_word": ids + ", of a household's adults",
		"purpose": hub, "retention_rule": hub, "bar": erased, "erased_source": erased, "group_answer": "how many answered a recipient, by the name of a stream",
		"segment": hub, "dead_range": erased, "dead_owner": erased, "rolled": hub, "arrival": hub, "arrival_roll": hub, "ingest_clock": hub,
		"erasure": erased, "erasure_alone": erased, "expiry": hub, "retraction": "the recipient's", "recovery_deal": hub, "backup": hub, "backup_drill": hub, "backup_resealed": hub,
		"goose_db_version": hub, "sqlite_sequence": hub,
	}
}

// unlisted are places of an erasure that are no tables, and what fills them.
func unlisted() map[string]string {
	return map[string]string{"Wills": "wills that wait, counted by a metric", "Memory": "keys and readings in memory, which a search must find before", "Journal": "readings that are not rolled", "Catalog": "the tables' file"}
}

// Planted is what the two owners had in a place before one was erased, and what is
// left of his.
type Planted struct {
	Place   string `json:"place"`
	Canary  int    `json:"canary"`
	Control int    `json:"control"`
	Left    int    `json:"left"` // rows, where a table keeps ids and numbers for good
}

// count returns how many rows of each table are an owner's. The hub is stopped.
func (d *drill) count(ctx context.Context, o *owner) (rows map[string]int, err error) {
	p, err := holdfast.ParseID[holdfast.PartyID](o.party)
	if err != nil {
		return nil, err
	}
	var devices [][]byte
	for _, text := range []string{o.device, o.spare} {
		id, err := holdfast.ParseID[holdfast.DeviceID](text)
		if err != nil {
			return nil, err
		}
		devices = append(devices, id[:])
	}
	var assignments [][]byte
	for _, id := range o.assignments {
		assignments = append(assignments, id[:])
	}
	fill := strings.NewReplacer("{party}", blobs(p[:]), "{assignments}", blobs(assignments...), "{devices}", blobs(devices...))
	db, err := catalog.Open(ctx, filepath.Join(d.data(), "catalog"), catalog.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows = map[string]int{}
	return rows, db.Read(ctx, func(tx *sql.Tx) error {
		for _, t := range ofOwners() {
			var n int
			if err := tx.QueryRowContext(ctx, fill.Replace(sub(t.name, "COUNT(*)", t.where))).Scan(&n); err != nil {
				return fmt.Errorf("count %s: %w", t.name, err)
			}
			rows[t.name] = n
		}
		return nil
	})
}

// blobs is a list of SQL.
func blobs(all ...[]byte) string {
	var out []string
	for _, b := range all {
		out = append(out, "x'"+hex.EncodeToString(b)+"'")
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// planted fails where an owner has nothing: what is not there before can't be seen to
// be gone after.
func (d *drill) planted(ctx context.Context) error {
	canary, err := d.count(ctx, d.canary)
	if err != nil {
		return err
	}
	control, err := d.count(ctx, d.control)
	if err != nil {
		return err
	}
	var empty []string
	rows := 0
	for _, t := range ofOwners() {
		d.report.Planted = append(d.report.Planted, Planted{Place: t.name, Canary: canary[t.name], Control: control[t.name]})
		rows += canary[t.name]
		if canary[t.name] == 0 || control[t.name] == 0 {
			empty = append(empty, t.name)
		}
	}
	if empty != nil {
		err = holdfast.Errorf(holdfast.Internal, "nothing could be planted in %s: an erasure that forgets it would not be seen", strings.Join(empty, ", "))
	}
	d.check("planted", "each table of the catalog that can hold something of an owner does", fmt.Sprintf("%d rows of the canary in %d tables", rows, len(ofOwners())), err)
	return nil
}

// left counts what the erasure has left of the canary, and whether the control has all
// of his.
func (d *drill) left(ctx context.Context) error {
	canary, err := d.count(ctx, d.canary)
	if err != nil {
		return err
	}
	control, err := d.count(ctx, d.control)
	if err != nil {
		return err
	}
	for i, t := range ofOwners() {
		p := &d.report.Planted[i]
		if p.Left = canary[t.name]; p.Left > 0 && t.place != "" {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "%s has %d rows of the erased owner", t.name, p.Left))
		}
		if control[t.name] < min(p.Control, 1) {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "%s has no row of the other owner any more", t.name))
		}
	}
	d.check("rows", "the erased owner's rows are gone from the catalog, the other's are there", "", err)
	return nil
}
