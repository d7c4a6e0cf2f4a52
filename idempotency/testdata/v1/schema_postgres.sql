CREATE TABLE IF NOT EXISTS app.millrace_migrations (
  component  TEXT NOT NULL,
  version    INTEGER NOT NULL,
  applied_at BIGINT NOT NULL,
  PRIMARY KEY (component, version)
);

CREATE TABLE IF NOT EXISTS app.inbox (
  consumer   text COLLATE "C" NOT NULL,
  source     text COLLATE "C" NOT NULL,
  id         text COLLATE "C" NOT NULL,
  handled_at bigint NOT NULL,
  PRIMARY KEY (consumer, source, id)
);

CREATE INDEX IF NOT EXISTS inbox_handled_at ON app.inbox (handled_at);

INSERT INTO app.millrace_migrations (component, version, applied_at) VALUES ('app.inbox', 1, (extract(epoch FROM now()) * 1000)::bigint) ON CONFLICT DO NOTHING;
