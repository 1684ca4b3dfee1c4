-- +goose Up

-- A segment is an immutable blob of sealed chunks.
CREATE TABLE segment (
	id         INTEGER PRIMARY KEY,
	blob       BLOB    NOT NULL UNIQUE,
	state      INTEGER NOT NULL, -- 0 announced: the blob may be there or not, no row names it; 1 in use
	bytes      INTEGER NOT NULL,
	live       INTEGER NOT NULL, -- rows of chunk in it
	live_bytes INTEGER NOT NULL
) STRICT;

-- One row per chunk. The cell (assignment, stream, bucket) has one key; rolled
-- orders its chunks by arrival.
CREATE TABLE chunk (
	assignment    BLOB    NOT NULL,
	stream        BLOB    NOT NULL,
	bucket        INTEGER NOT NULL, -- seal.Bucket
	rolled        INTEGER NOT NULL, -- number of the roll << 20 | part
	pending       INTEGER NOT NULL, -- 1: sealed under a key that is not in force yet
	id            BLOB    NOT NULL,
	key_id        BLOB    NOT NULL,
	segment       INTEGER NOT NULL,
	at            INTEGER NOT NULL, -- offset in the segment
	size          INTEGER NOT NULL,
	summary       INTEGER NOT NULL, -- size of the summary's box, which follows; 0: there is none
	extent_sealed BLOB    NOT NULL, -- times, rows, arrivals; under the chunk's own key
	PRIMARY KEY (assignment, stream, bucket, rolled, pending)
) STRICT, WITHOUT ROWID;

CREATE INDEX chunk_pending ON chunk (pending) WHERE pending = 1;

-- Ranges of segments that no chunk row names any more and that are still to be
-- zeroed.
CREATE TABLE dead_range (
	segment INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	size    INTEGER NOT NULL,
	PRIMARY KEY (segment, at)
) STRICT, WITHOUT ROWID;

-- How far the journal is rolled: one row.
CREATE TABLE rolled (
	only     INTEGER PRIMARY KEY CHECK (only = 1),
	position INTEGER NOT NULL, -- journal.Pos: what lies before is in chunks
	roll     INTEGER NOT NULL  -- number of the last roll
) STRICT;

INSERT INTO rolled (only, position, roll) VALUES (1, 0, 0);

-- +goose Down
DROP TABLE rolled;
DROP TABLE dead_range;
DROP TABLE chunk;
DROP TABLE segment;
