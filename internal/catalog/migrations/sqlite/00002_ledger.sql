-- +goose Up
CREATE TABLE ledger_entry (
	idx            INTEGER NOT NULL PRIMARY KEY, -- 0, 1, 2, ... without a gap
	owner          BLOB    NOT NULL, -- whose records key seals the payload
	key_id         BLOB    NOT NULL, -- of that key
	commitment     BLOB    NOT NULL, -- SHA-256(salt, payload): the leaf
	payload_sealed BLOB    NOT NULL  -- salt and payload
) STRICT;

CREATE INDEX ledger_entry_owner ON ledger_entry (owner, idx);

CREATE TABLE ledger_hash ( -- the tree, in the order of golang.org/x/mod/sumdb/tlog
	idx  INTEGER NOT NULL PRIMARY KEY,
	hash BLOB    NOT NULL
) STRICT;

CREATE TABLE ledger_checkpoint (
	size INTEGER NOT NULL PRIMARY KEY,
	at   INTEGER NOT NULL, -- ns since 1970
	note TEXT    NOT NULL  -- C2SP tlog-checkpoint, signed
) STRICT;

CREATE TABLE ledger_key (
	one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
	origin      TEXT    NOT NULL,
	verifier    TEXT    NOT NULL, -- note verifier key, public
	seed_sealed BLOB    NOT NULL  -- note signer key
) STRICT;

-- +goose Down
DROP TABLE ledger_key;
DROP TABLE ledger_checkpoint;
DROP TABLE ledger_hash;
DROP TABLE ledger_entry;
