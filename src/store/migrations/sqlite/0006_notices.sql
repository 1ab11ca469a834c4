-- Grants that have ended, or will, until whoever wants to know has been told. Written with the end itself, oldest first.
CREATE TABLE notices (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    service         TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    kind            TEXT    NOT NULL,   -- ended, ending
    at              INTEGER NOT NULL,   -- when it ended, or when it was seen that it will
    reason          TEXT,               -- of one that has ended
    ended_by        TEXT,
    ends_at         INTEGER             -- of one that will
) STRICT;

-- The end that was last said of a grant, so that it is said once.
ALTER TABLE grants ADD COLUMN warned_of INTEGER;
-- Those of which it has not been said, the first to end first. A day's difference (in milliseconds) is another end: some
-- servers move it a little at each use.
CREATE INDEX grants_to_warn_of ON grants (expires_at)
    WHERE expires_at IS NOT NULL AND ended_at IS NULL AND candidate = '' AND user <> ''
        AND (warned_of IS NULL OR abs(expires_at - warned_of) >= 86400000);
