-- +goose Up
CREATE TABLE mqtt_subscription ( -- of sessions that outlive their connection
	session      BLOB NOT NULL, -- its name in mqtt_session
	filter_hash  BLOB NOT NULL, -- keyed hash of the topic filter
	about_sealed BLOB NOT NULL, -- under the key of the session's owner; JSON: filter, options, how far the client has got
	PRIMARY KEY (session, filter_hash)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE mqtt_subscription;
