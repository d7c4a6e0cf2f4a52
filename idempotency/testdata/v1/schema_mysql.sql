CREATE TABLE IF NOT EXISTS app.millrace_migrations (
  component  VARBINARY(110) NOT NULL,
  version    INTEGER NOT NULL,
  applied_at BIGINT NOT NULL,
  PRIMARY KEY (component, version)
);

CREATE TABLE IF NOT EXISTS app.inbox (
  consumer   VARBINARY(255) NOT NULL,
  source     VARBINARY(255) NOT NULL,
  id         VARBINARY(255) NOT NULL,
  handled_at BIGINT NOT NULL,
  PRIMARY KEY (consumer, source, id),
  KEY inbox_handled_at (handled_at)
) ENGINE=InnoDB;

INSERT IGNORE INTO app.millrace_migrations (component, version, applied_at) VALUES ('app.inbox', 1, floor(unix_timestamp() * 1000));
