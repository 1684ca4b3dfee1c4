-- +goose Up
-- Clear columns hold random ids, keyed hashes and states; info_sealed holds all else.
CREATE TABLE purpose (
	name_hash   BLOB NOT NULL PRIMARY KEY,
	state       TEXT NOT NULL,     -- active | ended
	info_sealed BLOB NOT NULL      -- under the hub
) STRICT, WITHOUT ROWID;

CREATE TABLE data_grant (
	id          BLOB NOT NULL PRIMARY KEY,
	grantor     BLOB NOT NULL,
	recipient   BLOB NOT NULL,
	state       TEXT NOT NULL,     -- active | ended
	info_sealed BLOB NOT NULL      -- under the grantor
) STRICT, WITHOUT ROWID;
CREATE INDEX data_grant_grantor ON data_grant (grantor, recipient);
CREATE INDEX data_grant_recipient ON data_grant (recipient);

CREATE TABLE disclosure (
	id          BLOB NOT NULL PRIMARY KEY,
	owner       BLOB NOT NULL,
	state       TEXT NOT NULL,     -- open | closed
	info_sealed BLOB NOT NULL      -- under the owner
) STRICT, WITHOUT ROWID;
CREATE INDEX disclosure_owner ON disclosure (owner);

-- A bar outlives the keys of those it was set for, so it holds ids and times alone.
CREATE TABLE bar (
	assignment     BLOB    NOT NULL,
	stream         BLOB    NOT NULL, -- 16 zero bytes: every stream
	span_from      INTEGER NOT NULL, -- ns since 1970, ends included
	span_to        INTEGER NOT NULL,
	arrived_before INTEGER NOT NULL,
	expires        INTEGER NOT NULL,
	PRIMARY KEY (assignment, stream, span_from, span_to)
) STRICT, WITHOUT ROWID;
CREATE INDEX bar_expires ON bar (expires);

-- +goose Down
DROP TABLE bar;
DROP TABLE disclosure;
DROP TABLE data_grant;
DROP TABLE purpose;
