-- +goose Up
CREATE TABLE key_list (
	owner      BLOB    NOT NULL, -- party, assignment or hub
	bucket     INTEGER NOT NULL, -- seal.Bucket; 0 is the list without time
	owner_key  BLOB    NOT NULL, -- id of the owner key that seals it
	box_sealed BLOB    NOT NULL,
	PRIMARY KEY (owner, bucket, owner_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE retired_key ( -- journal keys that an erasure destroyed
	key_id BLOB    NOT NULL PRIMARY KEY,
	at     INTEGER NOT NULL -- ns since 1970
) STRICT, WITHOUT ROWID;

CREATE TABLE keyring_size ( -- how many owner keys the keyring had when one last came into use
	generation INTEGER NOT NULL PRIMARY KEY, -- in the middle of a rotation there are two
	entries    INTEGER NOT NULL
) STRICT;

CREATE TABLE rekeyed_owner ( -- whose owner keys a rotation under way leaves out or replaces
	owner BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE rekeyed_owner;
DROP TABLE keyring_size;
DROP TABLE retired_key;
DROP TABLE key_list;
