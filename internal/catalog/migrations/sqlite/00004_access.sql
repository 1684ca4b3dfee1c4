-- +goose Up
CREATE TABLE access_credential (
	id           BLOB    NOT NULL PRIMARY KEY,
	kind         INTEGER NOT NULL, -- 1 certificate, 2 token, 3 link to a subject of an issuer
	proof_hash   BLOB    NOT NULL, -- certificate: fingerprint of its signed part; token: SHA-256 of its secret; link: keyed hash of issuer and subject
	party        BLOB    NOT NULL,
	role         INTEGER NOT NULL, -- 1 administrator, 2 owner, 3 program, 4 auditor
	scopes       INTEGER NOT NULL, -- bits: 1 read, 2 write, 4 metrics
	about_sealed BLOB    NOT NULL, -- JSON: label, purposes, grants, issuer
	made         INTEGER NOT NULL, -- ns since 1970
	not_after    INTEGER NOT NULL,
	revoked      INTEGER NOT NULL, -- 0 while it is not
	last_day     INTEGER NOT NULL, -- days since 1970 of the last use, 0 for never
	holder       BLOB    NOT NULL, -- the first credential of the same holder: a successor keeps it
	since        INTEGER NOT NULL, -- when that one was made
	made_by      BLOB,             -- the holder at whose word that one was made; NULL: the hub, or an invitation
	settled      INTEGER NOT NULL  -- from when it may do what can't be undone; 0: at once
) STRICT, WITHOUT ROWID;
CREATE INDEX access_credential_party ON access_credential (party, role);
CREATE INDEX access_credential_holder ON access_credential (holder);
CREATE UNIQUE INDEX access_credential_link ON access_credential (proof_hash) WHERE kind = 3 AND revoked = 0;

CREATE TABLE access_invitation (
	id          BLOB    NOT NULL PRIMARY KEY, -- of the credential that it will make
	party       BLOB    NOT NULL,
	secret_hash BLOB    NOT NULL,
	made_by     BLOB,                         -- credential, NULL for the hub itself
	made        INTEGER NOT NULL,
	not_after   INTEGER NOT NULL,
	settled     INTEGER NOT NULL,             -- 1: an owner made it for himself with a settled credential
	state       INTEGER NOT NULL              -- 1 open, 2 redeemed, 3 replaced by a later one
) STRICT, WITHOUT ROWID;
CREATE INDEX access_invitation_party ON access_invitation (party, state);

-- +goose Down
DROP TABLE access_invitation;
DROP TABLE access_credential;
