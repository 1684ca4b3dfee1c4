-- +goose Up
-- Clear columns hold random ids, keyed hashes and states; info_sealed holds all else.
CREATE TABLE party (
	id          BLOB NOT NULL PRIMARY KEY,
	name_hash   BLOB UNIQUE,       -- NULL once erased
	state       TEXT NOT NULL,     -- operating | active | leaving | erased
	info_sealed BLOB               -- under the party; NULL once erased
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX party_operating ON party (state) WHERE state = 'operating';

CREATE TABLE unit (
	id          BLOB NOT NULL PRIMARY KEY,
	serial_hash BLOB NOT NULL UNIQUE,
	info_sealed BLOB NOT NULL      -- under the hub
) STRICT, WITHOUT ROWID;

CREATE TABLE profile (
	name_hash   BLOB    NOT NULL,
	version     INTEGER NOT NULL,
	info_sealed BLOB    NOT NULL,  -- under the hub
	PRIMARY KEY (name_hash, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
	id          BLOB NOT NULL PRIMARY KEY,
	assignment  BLOB NOT NULL,     -- the one its readings belong to
	owner       BLOB,              -- NULL: unclaimed or erased
	unit        BLOB,              -- NULL: no unit is known, or erased
	gateway     BLOB,              -- the device that speaks for this one
	label_hash  BLOB,
	child_hash  BLOB UNIQUE,       -- of the gateway and the name it uses
	state       TEXT NOT NULL,     -- unclaimed | active | closed | erased
	info_sealed BLOB               -- under the assignment; NULL once erased
) STRICT, WITHOUT ROWID;
CREATE INDEX device_assignment ON device (assignment);
CREATE INDEX device_owner ON device (owner);
CREATE INDEX device_gateway ON device (gateway);
CREATE INDEX device_label ON device (label_hash);
CREATE UNIQUE INDEX device_owner_label ON device (owner, label_hash) WHERE state = 'active';
CREATE UNIQUE INDEX device_unclaimed_label ON device (label_hash) WHERE state = 'unclaimed';
CREATE UNIQUE INDEX device_unit ON device (unit) WHERE state = 'active' OR state = 'unclaimed';

CREATE TABLE assignment (
	id          BLOB NOT NULL PRIMARY KEY,
	device      BLOB,              -- NULL once erased
	owner       BLOB,              -- NULL: unclaimed or erased
	subject     BLOB,              -- the data subject, if another than the owner
	state       TEXT NOT NULL,     -- unclaimed | active | closed | erased
	info_sealed BLOB               -- under the assignment; NULL once erased
) STRICT, WITHOUT ROWID;
CREATE INDEX assignment_owner ON assignment (owner);
CREATE INDEX assignment_subject ON assignment (subject);
CREATE INDEX assignment_device ON assignment (device);

CREATE TABLE assignment_version (     -- what was known of an assignment before
	assignment  BLOB    NOT NULL,
	number      INTEGER NOT NULL,  -- from 1
	info_sealed BLOB    NOT NULL,  -- under the assignment
	PRIMARY KEY (assignment, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE period (                 -- when readings of a device are not its own assignment's
	id          BLOB NOT NULL PRIMARY KEY,
	device      BLOB NOT NULL,
	assignment  BLOB,              -- NULL: erased, the time stays nobody's
	info_sealed BLOB NOT NULL      -- under the device's own assignment
) STRICT, WITHOUT ROWID;
CREATE INDEX period_device ON period (device);
CREATE UNIQUE INDEX period_assignment ON period (assignment);

CREATE TABLE stream (
	id          BLOB NOT NULL PRIMARY KEY,
	assignment  BLOB NOT NULL,
	name_hash   BLOB NOT NULL,
	state       TEXT NOT NULL,     -- active | erased
	info_sealed BLOB,              -- under the assignment; NULL once erased
	UNIQUE (assignment, name_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim_code (
	device    BLOB NOT NULL PRIMARY KEY,
	code_hash BLOB NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE TABLE membership (
	id          BLOB NOT NULL PRIMARY KEY,
	of          BLOB NOT NULL,     -- the household or organisation
	member      BLOB NOT NULL,
	ward        BLOB,              -- of a guardian: the child
	state       TEXT NOT NULL,     -- offered | active | ended
	info_sealed BLOB NOT NULL      -- under the household or organisation
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_of ON membership (of);
CREATE INDEX membership_member ON membership (member);
CREATE INDEX membership_ward ON membership (ward);

CREATE TABLE joint_erasure (
	id          BLOB NOT NULL PRIMARY KEY,
	party       BLOB NOT NULL,     -- the household
	erasure     BLOB,              -- that it became
	state       TEXT NOT NULL,     -- waiting | begun | withdrawn | expired
	info_sealed BLOB NOT NULL      -- under the household
) STRICT, WITHOUT ROWID;
CREATE INDEX joint_erasure_party ON joint_erasure (party);

CREATE TABLE joint_word (
	joint BLOB NOT NULL,
	adult BLOB NOT NULL,
	PRIMARY KEY (joint, adult)
) STRICT, WITHOUT ROWID;

CREATE TABLE transfer (
	id          BLOB NOT NULL PRIMARY KEY,
	device      BLOB NOT NULL,     -- that is offered
	seller      BLOB NOT NULL,
	buyer       BLOB,              -- NULL: whoever shows the code
	code_hash   BLOB UNIQUE,       -- NULL: offered to the buyer by name
	next_device BLOB,              -- that the unit became
	state       TEXT NOT NULL,     -- offered | taken | withdrawn | declined | expired | settled
	info_sealed BLOB NOT NULL      -- under the seller
) STRICT, WITHOUT ROWID;
CREATE INDEX transfer_seller ON transfer (seller);
CREATE INDEX transfer_buyer ON transfer (buyer);
CREATE INDEX transfer_state ON transfer (state);
CREATE UNIQUE INDEX transfer_offered ON transfer (device) WHERE state = 'offered';

CREATE TABLE release_notice (
	id          BLOB NOT NULL PRIMARY KEY,
	device      BLOB NOT NULL,
	owner       BLOB NOT NULL,
	state       TEXT NOT NULL,     -- open | objected | withdrawn | released
	info_sealed BLOB NOT NULL      -- under the owner
) STRICT, WITHOUT ROWID;
CREATE INDEX release_notice_owner ON release_notice (owner);
CREATE INDEX release_notice_device ON release_notice (device);
CREATE UNIQUE INDEX release_notice_open ON release_notice (device) WHERE state = 'open';

-- +goose Down
DROP TABLE release_notice;
DROP TABLE transfer;
DROP TABLE joint_word;
DROP TABLE joint_erasure;
DROP TABLE membership;
DROP TABLE claim_code;
DROP TABLE stream;
DROP TABLE period;
DROP TABLE assignment_version;
DROP TABLE assignment;
DROP TABLE device;
DROP TABLE profile;
DROP TABLE unit;
DROP TABLE party;
