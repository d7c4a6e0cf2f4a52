package sqlbus

import (
	"fmt"
)

// prepareTables creates the tables if need be and proves that the file can be
// written to.
func (f *file) prepareTables(provision bool) error {
	var mode string
	if err := f.writeConn.QueryRowContext(background, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("journal mode is %q and can't be changed to WAL", mode)
	}
	if _, err := f.writeConn.ExecContext(background, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := f.provision(provision)
	if err == nil {
		_, err = f.writeConn.ExecContext(background, "COMMIT")
	}
	if err != nil {
		_, _ = f.writeConn.ExecContext(background, "ROLLBACK") // SQLite may have done so by itself
		return err
	}
	// From here on the writer waits for the lock itself, so that contexts count.
	_, err = f.writeConn.ExecContext(background, "PRAGMA busy_timeout(0)")
	return err
}

func (f *file) provision(allowed bool) error {
	var tables int
	err := f.writeConn.QueryRowContext(background, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'millrace_meta'").Scan(&tables)
	if err != nil {
		return err
	}
	if tables > 0 {
		// Rewriting a row that is there anyway fails on a file that is read-only.
		_, err := f.writeConn.ExecContext(background, "UPDATE millrace_meta SET value = value WHERE name = 'schema'")
		return err
	}
	if !allowed {
		return notProvisionedError("the file lacks the tables of a bus, and provisioning is off: create them by opening it once with provisioning")
	}
	for _, statement := range schema {
		if _, err := f.writeConn.ExecContext(background, statement); err != nil {
			return err
		}
	}
	_, err = f.writeConn.ExecContext(background, "INSERT INTO millrace_meta (name, value) VALUES ('schema', ?), ('partitions', ?)", schemaVersion, partitionCount)
	return err
}

// readMeta learns the number of partitions and refuses tables that it does not know.
func (s *store) readMeta() error {
	const query = "SELECT value FROM millrace_meta WHERE name = ?"
	version, _, err := s.read.number(query, "schema")
	if err != nil {
		return err
	}
	if version != schemaVersion {
		return fmt.Errorf("the tables have version %d, this program knows version %d: upgrade it", version, schemaVersion)
	}
	partitions, _, err := s.read.number(query, "partitions")
	if err == nil && (partitions < 1 || partitions > 1<<16) {
		err = fmt.Errorf("millrace_meta holds %d partitions", partitions)
	}
	s.partitions = int(partitions)
	return err
}
