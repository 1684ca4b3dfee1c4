-- +goose Up
-- Who has a share of the way back to the root key. Sealed under the hub's key: names
-- and commitments, when a rehearsal was done, who has destroyed a share.
CREATE TABLE recovery_deal (
	id          BLOB    NOT NULL PRIMARY KEY, -- of the deal's public key
	number      INTEGER NOT NULL UNIQUE,      -- in the order of dealing
	state       TEXT    NOT NULL,             -- in force | replaced | ended
	info_sealed BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE recovery_deal;
