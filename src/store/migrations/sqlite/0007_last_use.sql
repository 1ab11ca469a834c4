-- Who used a grant last, and when. Beside the grants: a use changes nothing of a grant's row, and outlives a consent that
-- is replaced by another.
CREATE TABLE last_use (
    service         TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    used_at         INTEGER NOT NULL,   -- milliseconds since 1970
    uid             INTEGER NOT NULL,
    unit            TEXT,               -- systemd's, where callers are looked at closely
    run             TEXT,               -- where a run pass was shown
    PRIMARY KEY (service, user)
) STRICT, WITHOUT ROWID;
