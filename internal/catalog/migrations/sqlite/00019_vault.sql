-- +goose Up
CREATE TABLE rekey ( -- owners who get fresh keys because theirs may have become known
	id     BLOB PRIMARY KEY,
	number INTEGER NOT NULL UNIQUE,
	party  BLOB,             -- whose; null: of all
	owners INTEGER NOT NULL  -- how many there are to do
) STRICT, WITHOUT ROWID;

CREATE TABLE rekey_owner ( -- those still to do
	rekey BLOB NOT NULL,
	owner BLOB NOT NULL,
	PRIMARY KEY (rekey, owner)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE rekey_owner;
DROP TABLE rekey;
