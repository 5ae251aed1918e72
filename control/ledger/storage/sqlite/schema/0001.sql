-- Version 1. An event's row is the only copy of its fields: the leaf hash covers all of them.
CREATE TABLE stream (
	id        INTEGER PRIMARY KEY,
	tenant    TEXT NOT NULL,
	workspace TEXT NOT NULL,
	session   TEXT NOT NULL,
	name      TEXT NOT NULL,
	UNIQUE (name, session, workspace, tenant)
) STRICT;

-- Sealed texts. Erasing the row of payload_key erases the text; its digest stays valid.
CREATE TABLE payload (
	digest BLOB PRIMARY KEY,
	sealed BLOB NOT NULL
) STRICT;

CREATE TABLE payload_key (
	digest BLOB PRIMARY KEY REFERENCES payload (digest),
	key    BLOB NOT NULL
) STRICT;

CREATE TABLE event (
	seq     INTEGER PRIMARY KEY,
	stream  INTEGER NOT NULL REFERENCES stream (id),
	version INTEGER NOT NULL,
	kind    TEXT NOT NULL,
	schema  INTEGER NOT NULL,
	time_us INTEGER NOT NULL,
	actor   TEXT NOT NULL,
	key     TEXT,
	payload BLOB REFERENCES payload (digest),
	body    BLOB NOT NULL,
	leaf    BLOB NOT NULL,
	UNIQUE (stream, version)
) STRICT;

CREATE INDEX event_key ON event (key, stream) WHERE key IS NOT NULL;

-- Full tiles of 256 hashes of the Merkle tree; the rest follows from the leaf hashes.
CREATE TABLE tile (
	level INTEGER NOT NULL,
	n     INTEGER NOT NULL,
	data  BLOB NOT NULL,
	PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- Projections: what follows from the events.
CREATE TABLE state (
	projection TEXT NOT NULL,
	key        TEXT NOT NULL,
	value      BLOB NOT NULL,
	PRIMARY KEY (projection, key)
) STRICT, WITHOUT ROWID;
