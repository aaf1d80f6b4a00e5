-- What an owner or operator asked for besides: for how long an evicted instance is remembered ("forget_after", such as
-- 72h), whether an operator drained it ("held": true), and until when its id is kept out ("blocked"). Where they are empty,
-- nobody asked for it. No row is rewritten. Rows with either time have no "evicted_until": servers forget them.
ALTER TABLE instances ADD COLUMN "forget_after" TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN "held" TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN "blocked" TEXT NOT NULL DEFAULT '';
