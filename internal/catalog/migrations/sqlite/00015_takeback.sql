-- +goose Up
CREATE TABLE take_back ( -- what a restore must never undo
	number INTEGER NOT NULL PRIMARY KEY, -- 1, 2, 3, ... in the order of the changes
	line   TEXT    NOT NULL              -- JSON: kind, time, ids, states; what else there is of a row is in its sealed column
) STRICT;

CREATE TABLE take_back_batch ( -- take-backs as they are signed, for the copies of the keyring
	first INTEGER NOT NULL PRIMARY KEY, -- number of the first in it
	last  INTEGER NOT NULL,
	note  TEXT    NOT NULL,             -- docs/format/takeback.md
	sum   BLOB    NOT NULL              -- SHA-256 of the note
) STRICT;

-- +goose Down
DROP TABLE take_back_batch;
DROP TABLE take_back;
