package drill

import (
	"database/sql"
	"reflect"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// A new table is planted in, or it is said why nobody has anything in it.
func TestEveryTableIsPlantedIn(t *testing.T) {
	db, err := catalog.Open(t.Context(), t.TempDir(), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	known := map[string]bool{}
	for _, x := range ofOwners() {
		if known[x.name] || ofNobody()[x.name] != "" {
			t.Errorf("table %s is listed twice", x.name)
		}
		known[x.name] = true
	}
	for name := range ofNobody() {
		known[name] = true
	}
	there := map[string]bool{}
	err = db.Read(t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT name FROM `+"sqlite_master"+` WHERE type = 'table'`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			there[name] = true
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range there {
		if !known[name] {
			t.Errorf("the table %s is neither planted in nor said to be nobody's: an erasure that forgets it would not be seen", name)
		}
	}
	for name := range known {
		if !there[name] && name != "sqlite_sequence" {
			t.Errorf("there is no table %s any more", name)
		}
	}
}

// A new place of an erasure is planted in as well.
func TestEveryPlaceIsPlantedIn(t *testing.T) {
	filled := map[string]bool{}
	for _, x := range ofOwners() {
		filled[x.place] = true
	}
	for name := range unlisted() {
		filled[name] = true
	}
	places := reflect.TypeFor[erasure.Places]()
	for f := range places.Fields() {
		if !filled[f.Name] {
			t.Errorf("nothing is planted in the place %s", f.Name)
		}
	}
	for name := range filled {
		if _, ok := places.FieldByName(name); !ok && name != "" {
			t.Errorf("there is no place %s", name)
		}
	}
}
