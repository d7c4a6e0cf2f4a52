package saga

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// sqlSchema are the tables, separated by lines of ---. Times are Unix
// milliseconds, 0 for none. The index is for lists, counts and pruning: it finds
// the few instances that wait among those that have ended. It has no column that
// changes while an instance is on its way, so that PostgreSQL, which is left room
// on the pages, writes no index entry for such a transition: rested_at is
// updated_at for instances that have ended or are stuck, minus the time to recover
// them for those that have one, which seldom changes, and 0 for others.
const sqlSchema = `
CREATE TABLE IF NOT EXISTS {p} (
  saga          {name} NOT NULL,
  id            {id} NOT NULL,
  version       BIGINT NOT NULL,
  revision      BIGINT NOT NULL,
  status        {name} NOT NULL,
  state_version BIGINT NOT NULL,
  wake_at       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  rested_at     BIGINT NOT NULL,
  error         {text} NOT NULL,
  progress      {bytes} NOT NULL,
  state         {bytes} NOT NULL,
  PRIMARY KEY (saga, id){index}
){engine}{room}
---
CREATE TABLE IF NOT EXISTS {p}_history (
  saga          {name} NOT NULL,
  id            {id} NOT NULL,
  revision      BIGINT NOT NULL,
  at            BIGINT NOT NULL,
  event         {text} NOT NULL,
  event_id      {bytes} NOT NULL,
  from_position {text} NOT NULL,
  to_position   {text} NOT NULL,
  emitted       {text} NOT NULL,
  note          {text} NOT NULL,
  state         {bytes} NOT NULL,
  PRIMARY KEY (saga, id, revision)
){engine}
---
CREATE TABLE IF NOT EXISTS {p}_definitions (
  saga          {name} NOT NULL,
  version       BIGINT NOT NULL,
  fingerprint   {name} NOT NULL,
  PRIMARY KEY (saga, version)
){engine}`

// listed is the condition of PostgreSQL's index for lists, true of all instances,
// which what is found by that index has to have. As long as the planner believes
// that the table is small, an instance is as cheap to find by that index as by its
// key, and a plan that is kept then goes through all instances of the saga.
const listed = "status <> ''"

// maxName and maxID are what fits into the keys of MySQL.
const (
	maxName = 249
	maxID   = 512
)

// words are what the databases call the types. On MySQL texts are bytes too: those
// of a connection may be of a character set that not everything fits into.
var words = map[Dialect][]string{
	SQLite: {"{name}", "TEXT", "{id}", "BLOB", "{text}", "TEXT", "{bytes}", "BLOB", "{index}", "", "{engine}", "", "{room}", ""},
	Postgres: {"{name}", `TEXT COLLATE "C"`, "{id}", "BYTEA", "{text}", "TEXT", "{bytes}", "BYTEA", "{index}", "", "{engine}", "",
		"{room}", " WITH (fillfactor = 80)"},
	MySQL: {"{name}", "VARBINARY(249)", "{id}", "VARBINARY(512)", "{text}", "LONGBLOB", "{bytes}", "LONGBLOB",
		"{index}", ",\n  KEY {i}_listed (saga, status, rested_at, id)", "{engine}", " ENGINE=InnoDB", "{room}", ""},
}

func migrations(d Dialect, prefix string) []dialect.Migration {
	schema, name := dialect.SplitPrefix(prefix)
	text := strings.NewReplacer(words[d]...).Replace(strings.TrimSpace(sqlSchema))
	switch d {
	case Postgres:
		text += "\n---\nCREATE INDEX IF NOT EXISTS {i}_listed ON {p} (saga, status, rested_at, id) WHERE " + listed
	case SQLite: // where the schema stands before the index
		if schema != "" {
			schema += "."
		}
		text += "\n---\nCREATE INDEX IF NOT EXISTS " + schema + "{i}_listed ON {i} (saga, status, rested_at, id)"
	}
	text = strings.NewReplacer("{p}", prefix, "{i}", name).Replace(text)
	return []dialect.Migration{{Version: 1, Statements: strings.Split(text, "\n---\n")}}
}
