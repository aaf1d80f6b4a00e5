-- What was asked for and what was observed are told apart: "asked" is the version of what was asked for, "incarnation"
-- the version with which this life of the id began. "evidence", "observed_since" and "observed_by" belong to "observed".
-- No row is rewritten: where "asked" is 0, an earlier release wrote the row, and the time of its registration is the version.
ALTER TABLE instances ADD COLUMN "asked" INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN "incarnation" INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN "evidence" TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN "observed_since" TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN "observed_by" TEXT NOT NULL DEFAULT '';
-- What was removed in the last hour, up to which version, so that nothing earlier comes back.
CREATE TABLE removed ("namespace" TEXT NOT NULL, "id" TEXT NOT NULL, "version" INTEGER NOT NULL, PRIMARY KEY ("namespace", "id")) STRICT, WITHOUT ROWID;
