-- +goose Up
CREATE TABLE erasure (
	id          BLOB    NOT NULL PRIMARY KEY,
	number      INTEGER NOT NULL UNIQUE, -- order in which they were asked
	party       BLOB,                    -- whose data; NULL if nobody's
	state       TEXT    NOT NULL,        -- asked, destroyed, done
	plan_sealed BLOB    NOT NULL,        -- ids and times, under the hub's key
	certificate BLOB                     -- signed note, when done
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE erasure;
