-- +goose Up

-- Whose credential an adult gave his word with, as package access names its holder;
-- none: the word is older than this column.
ALTER TABLE joint_word ADD COLUMN holder BLOB;

-- +goose Down
ALTER TABLE joint_word DROP COLUMN holder;
