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

CREATE TABLE access_permission (
	id           BLOB    NOT NULL PRIMARY KEY,
	whose        BLOB    NOT NULL, -- party whose data staff asked to read
	state        INTEGER NOT NULL, -- 1 asked, 2 approved, 3 refused, 4 ended
	asked_by     BLOB    NOT NULL, -- credential
	asker        BLOB    NOT NULL, -- its holder
	about_sealed BLOB    NOT NULL  -- JSON: purpose, reason, devices, times, who decided and ended it
) STRICT, WITHOUT ROWID;
CREATE INDEX access_permission_whose ON access_permission (whose, state);

CREATE TABLE access_factor (
	holder        BLOB    NOT NULL PRIMARY KEY, -- of staff; an owner's party
	party         BLOB    NOT NULL,
	state         INTEGER NOT NULL, -- 1 to be confirmed, 2 confirmed
	secret_sealed BLOB    NOT NULL,
	last_step     INTEGER NOT NULL, -- the newest time step that a code was taken for
	failures      INTEGER NOT NULL, -- in a row
	locked_until  INTEGER NOT NULL  -- ns since 1970; until then no code is looked at
) STRICT, WITHOUT ROWID;
CREATE INDEX access_factor_party ON access_factor (party);

CREATE TABLE access_recovery (
	holder    BLOB NOT NULL,
	code_hash BLOB NOT NULL, -- SHA-256 of a recovery code that was not used yet
	PRIMARY KEY (holder, code_hash)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE access_recovery;
DROP TABLE access_factor;
DROP TABLE access_permission;
DROP TABLE access_invitation;
DROP TABLE access_credential;
