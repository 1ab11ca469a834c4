-- When somebody asked for the token last, as far as was known when it was written: after a restart it is refreshed ahead
-- again if that is not long ago.
ALTER TABLE access_tokens ADD COLUMN asked_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX access_tokens_asked ON access_tokens (asked_at);

-- When the grant ends by itself, as its server says; without a date, expiry_known tells "never" from "not asked yet".
ALTER TABLE grants ADD COLUMN expires_at INTEGER;
ALTER TABLE grants ADD COLUMN expiry_known INTEGER NOT NULL DEFAULT 0;
CREATE INDEX grants_expiring ON grants (service, expires_at)
    WHERE expires_at IS NOT NULL AND ended_at IS NULL AND candidate = '';

-- The longest unused first, for keeping them alive.
CREATE INDEX grants_unused ON grants (service, refreshed_at, user)
    WHERE ended_at IS NULL AND candidate = '' AND user <> '' AND attempt_wall IS NULL;
