-- +goose Up

-- Backups that were begun: until the last of them has expired, somebody may have
-- ciphertext of then.
CREATE TABLE backup (
	id      BLOB    PRIMARY KEY,
	began   INTEGER NOT NULL, -- ns since 1970: what was erased before is not in it
	expires INTEGER NOT NULL, -- ns since 1970: it is kept until then
	ended   INTEGER NOT NULL, -- ns since 1970; 0: it did not come to its end, or not yet
	bytes   INTEGER NOT NULL, -- of all its pieces
	written INTEGER NOT NULL, -- of the pieces that were not there yet
	keyring TEXT    NOT NULL  -- where the owner keys are that it needs
) STRICT, WITHOUT ROWID;

-- Restores that were tried in a folder of their own, and ended well.
CREATE TABLE backup_drill (
	at INTEGER PRIMARY KEY -- ns since 1970
) STRICT;

-- Cells whose readings were sealed again since the newest backup began: its keys of
-- them are gone.
CREATE TABLE backup_resealed (
	at    INTEGER PRIMARY KEY, -- ns since 1970
	cells INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE backup_resealed;
DROP TABLE backup_drill;
DROP TABLE backup;
