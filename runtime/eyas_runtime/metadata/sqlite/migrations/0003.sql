-- Evaluation windows, and which checkpoint is the best one as of each (wire.Best as JSON; NULL: nothing evaluated yet).
ALTER TABLE job ADD COLUMN evaluate_every INTEGER NOT NULL DEFAULT 0 CHECK (evaluate_every >= 0);
ALTER TABLE checkpoints ADD COLUMN best TEXT CHECK (length(best) <= 1000);
