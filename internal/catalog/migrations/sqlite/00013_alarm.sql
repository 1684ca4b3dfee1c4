-- +goose Up
-- Clear columns hold random ids, keyed hashes, states, numbers and days.
CREATE TABLE alarm_rule (
	id           BLOB    NOT NULL PRIMARY KEY,
	party        BLOB    NOT NULL,
	info_sealed  BLOB    NOT NULL, -- under the party: the rule
	state_sealed BLOB    NOT NULL  -- under the party: how it fares
) STRICT, WITHOUT ROWID;
CREATE INDEX alarm_rule_party ON alarm_rule (party);

-- What a rule knows of each stream, or of each element of its expression.
CREATE TABLE alarm_instance (
	rule        BLOB NOT NULL REFERENCES alarm_rule (id) ON DELETE CASCADE,
	id          BLOB NOT NULL,    -- the stream's, or a hash of the labels
	assignment  BLOB,             -- NULL: of an expression
	info_sealed BLOB NOT NULL,    -- under the assignment; of an expression under the party
	PRIMARY KEY (rule, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarm_instance_assignment ON alarm_instance (assignment);

CREATE TABLE alarm_event (
	rule        BLOB    NOT NULL REFERENCES alarm_rule (id) ON DELETE CASCADE,
	n           INTEGER NOT NULL, -- 1, 2, 3, ... of the rule's
	assignment  BLOB,             -- whose reading it tells of; NULL: nobody's
	day         INTEGER NOT NULL, -- since 1970
	info_sealed BLOB    NOT NULL, -- under the assignment, else under the party
	PRIMARY KEY (rule, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarm_event_assignment ON alarm_event (assignment);
CREATE INDEX alarm_event_day ON alarm_event (day);

-- +goose Down
DROP TABLE alarm_event;
DROP TABLE alarm_instance;
DROP TABLE alarm_rule;
