-- A user's consent for one service. A row with a candidate (the refresh token's digest) was handed in and is not proven
-- yet, so its user says nothing; tokens are vended from rows whose candidate is empty.
CREATE TABLE grants (
    service         TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    candidate       TEXT    NOT NULL DEFAULT '',
    -- Digest of the refresh token that was handed in, which is never to be presented a second time.
    origin          TEXT    NOT NULL,
    -- Issuer and client that the refresh token belongs to; others must never see it.
    registration    TEXT    NOT NULL,
    ended_reason    TEXT,
    ended_at        INTEGER,            -- milliseconds since 1970, as every time here
    rotation        TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    refresh_token   BLOB    NOT NULL,   -- sealed
    created_at      INTEGER NOT NULL,
    refreshed_at    INTEGER,
    -- Write-ahead: the first exchange of which it is not known whether it took place.
    attempt_wall    INTEGER,
    attempt_boot    INTEGER,
    attempt_boot_id TEXT,
    lease_owner     TEXT,
    lease_until     INTEGER,            -- milliseconds since boot
    PRIMARY KEY (service, user, candidate)
) STRICT;

CREATE INDEX grants_origin ON grants (service, origin);
CREATE INDEX grants_in_doubt ON grants (attempt_wall) WHERE attempt_wall IS NOT NULL;

-- The access token that came last for each role ('' for the default scopes).
CREATE TABLE access_tokens (
    service         TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    candidate       TEXT    NOT NULL,
    role            TEXT    NOT NULL,
    version         INTEGER NOT NULL,   -- of the grant, when the token came
    access_token    BLOB    NOT NULL,   -- sealed
    scope           TEXT    NOT NULL,
    verified        TEXT    NOT NULL,   -- digest of what it was verified against, '' if it was not
    requested_wall  INTEGER NOT NULL,
    requested_boot  INTEGER NOT NULL,
    boot_id         TEXT    NOT NULL,
    expires_in      INTEGER NOT NULL,   -- milliseconds
    refresh_after   INTEGER NOT NULL,   -- milliseconds
    PRIMARY KEY (service, user, candidate, role),
    FOREIGN KEY (service, user, candidate) REFERENCES grants ON DELETE CASCADE ON UPDATE CASCADE
) STRICT;

-- One sealed constant: tells a wrong key from a damaged row before anything is lost.
CREATE TABLE seal_check (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    sealed          BLOB    NOT NULL
) STRICT;
