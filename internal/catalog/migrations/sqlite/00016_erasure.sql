-- +goose Up
-- Who was given what an erasure destroys, and whether he says that it is gone there.
-- It outlives the owner's key: clear columns hold random ids, counters and states, the
-- rest is under the recipient's key.
CREATE TABLE retraction (
	id          BLOB    NOT NULL PRIMARY KEY,
	n           INTEGER NOT NULL UNIQUE, -- order in which they were made
	erasure     BLOB    NOT NULL,
	recipient   BLOB    NOT NULL,        -- a party
	state       TEXT    NOT NULL,        -- open | acked | gone: the recipient was erased himself
	info_sealed BLOB                     -- under the recipient: grants, devices, streams, span, times; NULL when he is gone
) STRICT, WITHOUT ROWID;
CREATE INDEX retraction_erasure ON retraction (erasure);
CREATE INDEX retraction_recipient ON retraction (recipient, n);

-- +goose Down
DROP TABLE retraction;
