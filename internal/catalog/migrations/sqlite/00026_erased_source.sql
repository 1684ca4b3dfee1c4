-- +goose Up
-- Where erased devices sent from, so that what is declared there again takes nothing
-- from before. A row leads to no device, owner or erasure.
CREATE TABLE erased_source (
	hash    BLOB    NOT NULL, -- keyed: a child's name within its gateway, a serial, or a label
	serial  INTEGER NOT NULL, -- 1: of a label whose device had a serial, which tells it apart better
	expires INTEGER NOT NULL, -- ns since 1970
	PRIMARY KEY (hash, serial)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE erased_source;
