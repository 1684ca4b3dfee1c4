-- +goose Up
CREATE TABLE erasure (
	id          BLOB    NOT NULL PRIMARY KEY,
	number      INTEGER NOT NULL UNIQUE, -- order in which they were asked
	party       BLOB,                    -- whose data; NULL if nobody's
	state       TEXT    NOT NULL,        -- asked, destroyed, done
	plan_sealed BLOB    NOT NULL,        -- ids and times, under the hub's key
	certificate BLOB                     -- signed note, when done
) STRICT, WITHOUT ROWID;

-- Routine expiry: one row.
CREATE TABLE expiry (
	only        INTEGER PRIMARY KEY CHECK (only = 1),
	last        INTEGER NOT NULL, -- ns since 1970: when the last run ended; 0: none did
	plan_sealed BLOB              -- of the run under way, ids and times, under the hub's key
) STRICT;

INSERT INTO expiry (only, last) VALUES (1, 0);

-- +goose Down
DROP TABLE expiry;
DROP TABLE erasure;
