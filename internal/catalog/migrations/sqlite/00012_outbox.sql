-- +goose Up
-- Clear columns hold random ids, states and days; info_sealed holds all else.
CREATE TABLE outbox_webhook (
	id          BLOB NOT NULL PRIMARY KEY,
	party       BLOB NOT NULL,
	state       TEXT NOT NULL,    -- active | disabled
	info_sealed BLOB NOT NULL     -- under the party: name, address, secrets
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_webhook_party ON outbox_webhook (party);

CREATE TABLE outbox_job (
	id          BLOB    NOT NULL PRIMARY KEY,
	party       BLOB    NOT NULL,
	webhook     BLOB,             -- NULL: mail
	state       TEXT    NOT NULL, -- waiting | delivered | dead
	day         INTEGER NOT NULL, -- since 1970, of its making
	info_sealed BLOB    NOT NULL  -- under the party: what is sent, to whom, how often it was tried
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_job_party ON outbox_job (party);
CREATE INDEX outbox_job_state ON outbox_job (state, day);

-- Whose readings a job tells of.
CREATE TABLE outbox_about (
	assignment BLOB NOT NULL,
	job        BLOB NOT NULL REFERENCES outbox_job (id) ON DELETE CASCADE,
	PRIMARY KEY (assignment, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_about_job ON outbox_about (job);

-- +goose Down
DROP TABLE outbox_about;
DROP TABLE outbox_job;
DROP TABLE outbox_webhook;
