-- Incidents say to which attempt or ordinal they happened, and when the successor was there.
ALTER TABLE incidents RENAME TO incidents_before;

CREATE TABLE incidents (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  klass TEXT NOT NULL CHECK (length(klass) BETWEEN 1 AND 100),
  unit TEXT NOT NULL CHECK (length(unit) <= 200),
  message TEXT NOT NULL CHECK (length(message) <= 4000),
  detected REAL NOT NULL,
  step INTEGER NOT NULL DEFAULT 0,
  recovered REAL NOT NULL DEFAULT 0,
  windows_replayed INTEGER NOT NULL DEFAULT 0,
  serial INTEGER NOT NULL DEFAULT 0,
  replaced REAL NOT NULL DEFAULT 0
) STRICT;

INSERT INTO incidents (number, klass, unit, message, detected, step, recovered, windows_replayed)
SELECT number, klass, unit, message, detected, step, recovered, windows_replayed FROM incidents_before;

DROP TABLE incidents_before;
