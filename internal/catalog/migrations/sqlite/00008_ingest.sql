-- +goose Up
CREATE TABLE mqtt_session ( -- sessions that outlive a connection
	name      BLOB    NOT NULL PRIMARY KEY, -- random; stands in journal records
	device    BLOB    NOT NULL,
	assignment BLOB   NOT NULL,
	client    BLOB    NOT NULL, -- keyed hash of the client id
	expiry    INTEGER NOT NULL, -- seconds after the connection's end
	closed    INTEGER NOT NULL, -- ns since 1970; 0 while open, or not known to have closed
	received  BLOB    NOT NULL, -- QoS 2 packet ids not released, 2 bytes each
	UNIQUE (device, client)
) STRICT, WITHOUT ROWID;

CREATE TABLE ingest_clock ( -- arrival times never run back, across restarts too
	one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
	arrival INTEGER NOT NULL -- ns since 1970
) STRICT;

-- +goose Down
DROP TABLE ingest_clock;
DROP TABLE mqtt_session;
