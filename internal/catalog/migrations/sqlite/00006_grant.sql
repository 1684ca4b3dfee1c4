-- +goose Up
-- Clear columns hold random ids, keyed hashes and states; info_sealed holds all else.
CREATE TABLE purpose (
	name_hash   BLOB NOT NULL PRIMARY KEY,
	state       TEXT NOT NULL,     -- active | ended
	info_sealed BLOB NOT NULL      -- under the hub
) STRICT, WITHOUT ROWID;

CREATE TABLE data_grant (
	id          BLOB    NOT NULL PRIMARY KEY,
	n           INTEGER NOT NULL,  -- rises with every grant that is made
	grantor     BLOB    NOT NULL,
	recipient   BLOB    NOT NULL,
	state       TEXT    NOT NULL,  -- active | ended
	info_sealed BLOB    NOT NULL   -- under the grantor
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX data_grant_n ON data_grant (n);
CREATE INDEX data_grant_grantor ON data_grant (grantor, state, recipient);
CREATE INDEX data_grant_made ON data_grant (grantor, n);
CREATE INDEX data_grant_given ON data_grant (recipient, n);

CREATE TABLE disclosure (
	owner       BLOB    NOT NULL,
	n           INTEGER NOT NULL, -- 1, 2, 3, ... of this owner's
	hour        INTEGER NOT NULL, -- of its opening, since 1970
	id          BLOB    NOT NULL,
	tally       BLOB    NOT NULL, -- the disclosure_tally that counts it
	state       TEXT    NOT NULL, -- open | closed
	info_sealed BLOB    NOT NULL, -- under the owner
	PRIMARY KEY (owner, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX disclosure_hour ON disclosure (owner, hour, n);
CREATE INDEX disclosure_tally_hour ON disclosure (owner, tally, hour, n);

CREATE TABLE disclosure_tally (
	owner       BLOB NOT NULL,
	id          BLOB NOT NULL, -- keyed hash of what its disclosures have in common
	info_sealed BLOB NOT NULL, -- under the owner
	PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE hold (
	id          BLOB NOT NULL PRIMARY KEY,
	party       BLOB NOT NULL,     -- whose data it is on
	state       TEXT NOT NULL,     -- active | ended
	info_sealed BLOB NOT NULL      -- under the party
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_party ON hold (party);
CREATE INDEX hold_active ON hold (state) WHERE state = 'active';

CREATE TABLE device_group (
	id          BLOB NOT NULL PRIMARY KEY,
	party       BLOB NOT NULL,     -- the recipient whose it is
	state       TEXT NOT NULL,     -- active | ended
	info_sealed BLOB NOT NULL      -- under the party
) STRICT, WITHOUT ROWID;
CREATE INDEX device_group_party ON device_group (party);

-- What a recipient was told of groups, by stream name.
CREATE TABLE group_answer (
	id_hash     BLOB NOT NULL PRIMARY KEY, -- of recipient and name
	recipient   BLOB NOT NULL,
	info_sealed BLOB NOT NULL              -- under the hub: it must outlive the members
) STRICT, WITHOUT ROWID;
CREATE INDEX group_answer_recipient ON group_answer (recipient);
CREATE TABLE retention_rule (
	rule_hash   BLOB NOT NULL PRIMARY KEY,
	info_sealed BLOB NOT NULL      -- under the hub
) STRICT, WITHOUT ROWID;

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
DROP TABLE group_answer;
DROP TABLE device_group;
DROP TABLE bar;
DROP TABLE disclosure_tally;
DROP TABLE retention_rule;
DROP TABLE hold;
DROP TABLE disclosure;
DROP TABLE data_grant;
DROP TABLE purpose;
