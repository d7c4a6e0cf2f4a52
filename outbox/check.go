package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/internal/dialect"
)

// errUnsafe says that positions are not handed out as the relay relies on.
var errUnsafe = errors.New("the relay could lose events of this log")

// checkTables reports what no retry will mend.
func (r *Relay) checkTables(ctx context.Context) error {
	_, err := r.box.peekLease(ctx)
	if err == nil {
		err = r.box.checkPositions(ctx)
	}
	if err == nil {
		err = r.box.checkRestart(ctx)
	}
	if errors.Is(err, errNoTables) || errors.Is(err, dialect.ErrNewer) || errors.Is(err, errUnsafe) {
		return err
	}
	return nil // a database that is away for a moment is no reason to fail
}

// checkRestart reports a log whose positions have begun again, below what is
// published: the relay would not see what is written there.
func (o *Outbox) checkRestart(ctx context.Context) error {
	var token, published, swept int64
	var missing []byte
	if err := o.db.QueryRowContext(ctx, o.sql.taken).Scan(&token, &published, &missing, &swept); err != nil {
		return err
	}
	again := false
	if err := o.db.QueryRowContext(ctx, o.sql.below, swept).Scan(&again); err != nil {
		return err
	}
	if o.sql.dialect == Postgres && !again {
		// Found by oid: to turn the names of other sequences into oids takes privileges
		// on their schemas.
		err := o.db.QueryRowContext(ctx, `SELECT coalesce(s.last_value < $2::bigint, false) FROM pg_class AS c
			JOIN pg_namespace AS n ON n.oid = c.relnamespace
			JOIN pg_sequences AS s ON s.schemaname = n.nspname AND s.sequencename = c.relname
			WHERE c.oid = pg_get_serial_sequence($1::text, 'position')::regclass`,
			o.sql.prefix, published).Scan(&again)
		if err != nil {
			return err
		}
	}
	if !again {
		return nil
	}
	return fmt.Errorf("table %[1]s: positions have begun again below %[2]d, up to which all is published, as after TRUNCATE or a restore without sequences; "+
		"while no relay runs, UPDATE %[1]s_relay SET published = 0, gaps = '', swept = 0: %[3]w", o.sql.prefix, published, errUnsafe)
}

// checkPositions makes sure of what finding gaps stands on; see
// gapspostgres.go.
func (o *Outbox) checkPositions(ctx context.Context) error {
	switch o.sql.dialect {
	case Postgres:
		var ordered bool
		var cache, step int64
		err := o.db.QueryRowContext(ctx, `SELECT seqcache, seqincrement,
			coalesce((SELECT max(attnum) FILTER (WHERE attname = 'written_by') < max(attnum) FILTER (WHERE attname = 'position')
				FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname IN ('written_by', 'position')), false)
			FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence($1::text, 'position')::regclass`, o.sql.prefix).Scan(&cache, &step, &ordered)
		switch {
		case err != nil:
			return err
		case cache != 1 || step != 1:
			return fmt.Errorf("table %s: the sequence of column position must have CACHE 1 and INCREMENT 1, it has %d and %d: %w", o.sql.prefix, cache, step, errUnsafe)
		case !ordered:
			return fmt.Errorf("table %s: column written_by must stand before column position: %w", o.sql.prefix, errUnsafe)
		}
	case MySQL:
		var step int64
		if err := o.db.QueryRowContext(ctx, `SELECT @@auto_increment_increment`).Scan(&step); err != nil {
			return err
		}
		var name, isolation string
		if err := o.db.QueryRowContext(ctx, `SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')`).Scan(&name, &isolation); err != nil {
			return err
		}
		if isolation == "READ-UNCOMMITTED" {
			return fmt.Errorf("%s is %s, which shows what may yet be rolled back: %w", name, isolation, errUnsafe)
		}
		if step != 1 {
			return fmt.Errorf("auto_increment_increment is %d, as in a cluster with several primaries; it must be 1: %w", step, errUnsafe)
		}
	}
	return nil
}
