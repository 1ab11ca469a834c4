-- Runs of the workflow platform that are over, until no pass for them can be valid any more (milliseconds).
CREATE TABLE ended_runs (
    run TEXT NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_runs_until ON ended_runs (until);
