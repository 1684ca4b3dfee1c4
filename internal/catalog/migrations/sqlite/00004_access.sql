-- +goose Up
CREATE TABLE access_credential (
	id           BLOB    NOT NULL PRIMARY KEY,
	kind         INTEGER NOT NULL, -- 1 certificate, 2 token
	proof_hash   BLOB    NOT NULL, -- certificate: fingerprint of its signed part; token: SHA-256 of its secret
	party        BLOB    NOT NULL,
	role         INTEGER NOT NULL, -- 1 administrator, 2 owner, 3 program
	scopes       INTEGER NOT NULL, -- bits: 1 read, 2 write, 4 metrics
	about_sealed BLOB    NOT NULL, -- JSON: label, purposes
	made         INTEGER NOT NULL, -- ns since 1970
	not_after    INTEGER NOT NULL,
	revoked      INTEGER NOT NULL, -- 0 while it is not
	last_day     INTEGER NOT NULL  -- days since 1970 of the last use, 0 for never
) STRICT, WITHOUT ROWID;
CREATE INDEX access_credential_party ON access_credential (party, role);

CREATE TABLE access_invitation (
	id          BLOB    NOT NULL PRIMARY KEY, -- of the credential that it will make
	party       BLOB    NOT NULL,
	secret_hash BLOB    NOT NULL,
	made_by     BLOB,                         -- credential, NULL for the hub itself
	made        INTEGER NOT NULL,
	not_after   INTEGER NOT NULL,
	state       INTEGER NOT NULL              -- 1 open, 2 redeemed, 3 replaced by a later one
) STRICT, WITHOUT ROWID;
CREATE INDEX access_invitation_party ON access_invitation (party, state);

-- +goose Down
DROP TABLE access_invitation;
DROP TABLE access_credential;
