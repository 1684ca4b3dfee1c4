-- +goose Up
CREATE TABLE hub_authority (
	id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
	certificate  BLOB    NOT NULL, -- DER, public
	key_sealed   BLOB    NOT NULL, -- PKCS #8, under the hub's fields key
	hosts_sealed BLOB    NOT NULL  -- JSON list of the names in server certificates
) STRICT;

CREATE TABLE identity_device (
	device     BLOB    NOT NULL PRIMARY KEY,
	assignment BLOB,             -- NULL while unclaimed
	revoked    INTEGER NOT NULL  -- ns since 1970 of the last revocation, 0 for never
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_device_assignment ON identity_device (assignment);

CREATE TABLE device_certificate (
	fingerprint BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the signed part
	device      BLOB    NOT NULL REFERENCES identity_device (device),
	number      INTEGER NOT NULL, -- counts a device's certificates from 1
	spki        BLOB    NOT NULL, -- SHA-256 of the public key
	not_before  INTEGER NOT NULL, -- ns since 1970
	not_after   INTEGER NOT NULL,
	state       INTEGER NOT NULL, -- 1 fresh, 2 used, 3 superseded, 4 revoked
	UNIQUE (device, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_certificate_spki ON device_certificate (spki);
CREATE INDEX device_certificate_refused ON device_certificate (state, not_after);

CREATE TABLE enrolment_code (
	device      BLOB    NOT NULL PRIMARY KEY REFERENCES identity_device (device),
	secret_hash BLOB    NOT NULL,
	not_after   INTEGER NOT NULL,
	spki        BLOB              -- SHA-256 of the public key that used it, NULL while unused
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE enrolment_code;
DROP TABLE device_certificate;
DROP TABLE identity_device;
DROP TABLE hub_authority;
