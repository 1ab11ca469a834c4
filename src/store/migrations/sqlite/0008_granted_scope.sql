-- What the consent covers, words separated by spaces, where the server has said so.
ALTER TABLE grants ADD COLUMN granted_scope TEXT;
