-- A candidate that came of a consent given here: should the process end before it is known whose it is, nobody has it but
-- this row, and the next start gives it back. One that was handed in is kept until it is handed in again.
ALTER TABLE grants ADD COLUMN consented INTEGER NOT NULL DEFAULT 0;
CREATE INDEX grants_consented ON grants (consented) WHERE consented = 1;
