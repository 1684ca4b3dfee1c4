-- +goose Up

-- Whose dead chunks are in a segment until they are zeroed or it is deleted: an
-- erasure waits for its own. An empty assignment is anybody's.
CREATE TABLE dead_owner (
	segment    INTEGER NOT NULL,
	assignment BLOB    NOT NULL,
	PRIMARY KEY (segment, assignment)
) STRICT, WITHOUT ROWID;

INSERT INTO dead_owner (segment, assignment) SELECT segment, x'' FROM dead_range UNION SELECT id, x'' FROM segment WHERE live = 0;

-- +goose Down
DROP TABLE dead_owner;
