-- Refresh tokens that an authorization server has yet to be told to forget (RFC 7009). Here their grants have ended; a row
-- goes when the server has answered.
CREATE TABLE revocations (
    service         TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    token           TEXT    NOT NULL,   -- digest of the refresh token
    -- Issuer and client that the refresh token belongs to; others must never see it.
    registration    TEXT    NOT NULL,
    refresh_token   BLOB    NOT NULL,   -- sealed
    revoked_at      INTEGER NOT NULL,
    PRIMARY KEY (service, user, token)
) STRICT;

-- For everything of one user, whatever the service.
CREATE INDEX grants_user ON grants (user);
