-- +goose Up
-- What administrators had erased on their own word in the last 24 hours: what is asked
-- for in pieces is counted together.
CREATE TABLE erasure_alone (
	erasure BLOB    NOT NULL,
	item    BLOB    NOT NULL, -- an assignment; the party, where a party without any goes
	asker   BLOB    NOT NULL, -- holder of a credential
	minute  INTEGER NOT NULL, -- in which it was asked for, since 1970, by arrival time
	PRIMARY KEY (erasure, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX erasure_alone_minute ON erasure_alone (minute);

-- +goose Down
DROP TABLE erasure_alone;
