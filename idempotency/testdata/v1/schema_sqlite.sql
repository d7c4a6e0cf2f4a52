CREATE TABLE IF NOT EXISTS app.millrace_migrations (
  component  TEXT NOT NULL,
  version    INTEGER NOT NULL,
  applied_at BIGINT NOT NULL,
  PRIMARY KEY (component, version)
);

CREATE TABLE IF NOT EXISTS app.inbox (
  consumer   TEXT    NOT NULL,
  source     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  handled_at INTEGER NOT NULL,
  PRIMARY KEY (consumer, source, id)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS app.inbox_handled_at ON inbox (handled_at);

INSERT INTO app.millrace_migrations (component, version, applied_at) VALUES ('app.inbox', 1, CAST(strftime('%s','now') AS INTEGER) * 1000) ON CONFLICT DO NOTHING;
