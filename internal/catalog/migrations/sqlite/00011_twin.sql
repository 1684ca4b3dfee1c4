-- +goose Up
-- Clear columns hold random ids, keyed hashes, states, counters and buckets; the
-- sealed ones are under the assignment.
CREATE TABLE command (
	id            BLOB    NOT NULL PRIMARY KEY,
	assignment    BLOB    NOT NULL,
	device        BLOB    NOT NULL,
	n             INTEGER NOT NULL,  -- 1, 2, 3, ... of this device's
	state         TEXT    NOT NULL,  -- queued | delivered | accepted | done | failed | expired | cancelled
	due           INTEGER NOT NULL,  -- the hour since 1970 in which it expires
	key_hash      BLOB,              -- of the sender's own key for it; NULL: none was given
	info_sealed   BLOB    NOT NULL,
	args_sealed   BLOB    NOT NULL,
	result_sealed BLOB               -- NULL: none yet
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX command_order ON command (device, n);
CREATE UNIQUE INDEX command_key ON command (key_hash);
CREATE INDEX command_assignment ON command (assignment);
CREATE INDEX command_waiting ON command (device, state, n) WHERE state IN ('queued', 'delivered', 'accepted');
CREATE INDEX command_due ON command (due, state);

CREATE TABLE twin (
	device           BLOB    NOT NULL PRIMARY KEY,
	assignment       BLOB    NOT NULL,
	desired_version  INTEGER NOT NULL,
	reported_version INTEGER NOT NULL,
	desired_sealed   BLOB,           -- NULL: never set
	reported_sealed  BLOB            -- NULL: never sent
) STRICT, WITHOUT ROWID;
CREATE INDEX twin_assignment ON twin (assignment);

-- +goose Down
DROP TABLE twin;
DROP TABLE command;
