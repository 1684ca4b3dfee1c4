-- +goose Up

-- Size of the box of arrivals, which follows the chunk's and its summary's; 0: there is
-- none, the readings arrived before all positions that are known.
ALTER TABLE chunk ADD COLUMN arrivals INTEGER NOT NULL DEFAULT 0;

-- From where on live feeds can go on exactly: one row.
CREATE TABLE arrival (
	only     INTEGER PRIMARY KEY CHECK (only = 1),
	epoch    INTEGER NOT NULL, -- random: a restored hub begins another journal, and another epoch
	roll     INTEGER NOT NULL, -- chunks of this one and those before have no arrivals that count
	position INTEGER NOT NULL  -- journal.Pos: arrivals are known from here on
) STRICT;

INSERT INTO arrival (only, epoch, roll, position) SELECT 1, random(), roll, position FROM rolled;

-- Where rolls ended whose chunks have arrivals.
CREATE TABLE arrival_roll (
	roll     INTEGER NOT NULL PRIMARY KEY,
	position INTEGER NOT NULL, -- journal.Pos: the roll took what lies before
	at       INTEGER NOT NULL  -- when it was rolled, ns since 1970
) STRICT;

-- +goose Down
DROP TABLE arrival_roll;
DROP TABLE arrival;
ALTER TABLE chunk DROP COLUMN arrivals;
