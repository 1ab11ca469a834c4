-- What the consent covers, words separated by spaces, where the server has said so.
ALTER TABLE grants ADD COLUMN granted_scope TEXT;
-- Who consented, as the authorization server knows them for good; the name may become somebody else's.
ALTER TABLE grants ADD COLUMN subject TEXT;
