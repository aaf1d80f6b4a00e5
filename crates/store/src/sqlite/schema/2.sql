-- Which steps this file has been through, when, and which release took them.
CREATE TABLE schema_versions ("version" INTEGER PRIMARY KEY, "at" TEXT NOT NULL, "by" TEXT NOT NULL) STRICT;

-- What happened to whom. The key is the time in milliseconds times 1000, more when another event has it: so it is the
-- index by time, and new rows lie side by side. A mark that something is missing has empty texts for whatever it is
-- not about. There is no other index: it would cost each change more than the change itself, and the table is bounded.
CREATE TABLE history (
  "number" INTEGER PRIMARY KEY,
  "at" TEXT NOT NULL,
  "kind" TEXT NOT NULL,
  "namespace" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "id" TEXT NOT NULL,
  "from" TEXT NOT NULL,
  "to" TEXT NOT NULL,
  "reason" TEXT NOT NULL,
  "session" TEXT NOT NULL,
  "address" TEXT NOT NULL,
  "service" TEXT NOT NULL,
  "server" TEXT NOT NULL
) STRICT;
