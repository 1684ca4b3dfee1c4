-- +goose Up
CREATE TABLE ledger_entry ( -- together with ledger_padding: the leaves 0, 1, 2, ... without a gap
	idx            INTEGER NOT NULL PRIMARY KEY,
	owner          BLOB    NOT NULL, -- whose records key seals the payload
	key_id         BLOB    NOT NULL, -- of that key
	commitment     BLOB    NOT NULL, -- SHA-256(salt, payload): the leaf
	payload_sealed BLOB    NOT NULL  -- salt and payload
) STRICT;

CREATE INDEX ledger_entry_owner ON ledger_entry (owner, idx);

CREATE TABLE ledger_owner (
	owner   BLOB    NOT NULL PRIMARY KEY,
	entries INTEGER NOT NULL -- on his record; the next has this sequence
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_padding ( -- leaves that stand for nothing, computed from a key
	idx    INTEGER NOT NULL PRIMARY KEY, -- the first of a run
	leaves INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger_hash ( -- roots of the full subtrees of 256^level leaves
	level INTEGER NOT NULL, -- from 1
	n     INTEGER NOT NULL,
	hash  BLOB    NOT NULL,
	PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_checkpoint (
	size      INTEGER NOT NULL PRIMARY KEY,
	at        INTEGER NOT NULL, -- ns since 1970
	origin    INTEGER NOT NULL, -- ledger_origin.n
	published INTEGER NOT NULL, -- 1: everybody may have it; 0: it went out with a proof
	note      TEXT    NOT NULL  -- C2SP tlog-checkpoint, signed
) STRICT;

CREATE TABLE ledger_cosignature (
	size    INTEGER NOT NULL, -- of the checkpoint
	witness TEXT    NOT NULL, -- name of its key
	line    TEXT    NOT NULL, -- of a signed note
	PRIMARY KEY (size, witness)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_origin (
	n           INTEGER NOT NULL PRIMARY KEY, -- 1, 2, ...: the last one signs
	name        TEXT    NOT NULL,
	verifier    TEXT    NOT NULL, -- note verifier key, public
	first       INTEGER NOT NULL, -- leaf with which it begins
	seed_sealed BLOB    NOT NULL  -- note signer key; empty once another origin signs
) STRICT;

CREATE TABLE ledger_key (
	one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
	padding_sealed BLOB    NOT NULL -- the key of leaves that stand for nothing
) STRICT;

-- +goose Down
DROP TABLE ledger_key;
DROP TABLE ledger_origin;
DROP TABLE ledger_cosignature;
DROP TABLE ledger_checkpoint;
DROP TABLE ledger_hash;
DROP TABLE ledger_padding;
DROP TABLE ledger_owner;
DROP TABLE ledger_entry;
