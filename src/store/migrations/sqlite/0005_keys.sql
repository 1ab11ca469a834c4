-- The key that a row is sealed with, as the sealed value itself says: rows that need an old one are found, and counted,
-- without a look at all the others. Empty where nothing is sealed any more.
ALTER TABLE grants ADD COLUMN sealed_by BLOB GENERATED ALWAYS AS (substr(refresh_token, 2, 8)) VIRTUAL;
ALTER TABLE access_tokens ADD COLUMN sealed_by BLOB GENERATED ALWAYS AS (substr(access_token, 2, 8)) VIRTUAL;
ALTER TABLE revocations ADD COLUMN sealed_by BLOB GENERATED ALWAYS AS (substr(refresh_token, 2, 8)) VIRTUAL;
CREATE INDEX grants_sealed_by ON grants (sealed_by);
CREATE INDEX access_tokens_sealed_by ON access_tokens (sealed_by);
CREATE INDEX revocations_sealed_by ON revocations (sealed_by);

-- The ids of the keys that rows may be sealed with. A row of one that is not among them is damaged, or was put here: it is
-- no reason to miss a key.
CREATE TABLE seal_keys (
    id              BLOB    NOT NULL PRIMARY KEY
) STRICT;
INSERT INTO seal_keys SELECT substr(sealed, 2, 8) FROM seal_check;
DROP TABLE seal_check;
