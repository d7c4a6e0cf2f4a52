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
	again := false
	if err == nil {
		again, err = r.box.checkPositions(ctx)
	}
	if err == nil {
		err = r.box.checkRestart(ctx, again)
	}
	if errors.Is(err, errNoTables) || errors.Is(err, dialect.ErrNewer) || errors.Is(err, errUnsafe) {
		return err
	}
	return nil // a database that is away for a moment is no reason to fail
}

// checkRestart reports a log whose positions have begun again, below what is
// published: the relay would not see what is written there. The last position that
// was handed out may have told so already.
func (o *Outbox) checkRestart(ctx context.Context, again bool) error {
	var token, published, swept int64
	var missing []byte
	if err := o.db.QueryRowContext(ctx, o.sql.taken).Scan(&token, &published, &missing, &swept); err != nil {
		return err
	}
	if !again {
		if err := o.db.QueryRowContext(ctx, o.sql.below, swept).Scan(&again); err != nil {
			return err
		}
	}
	if !again {
		return nil
	}
	return fmt.Errorf("table %[1]s: positions have begun again below %[2]d, up to which all is published, as after TRUNCATE or a restore without sequences; "+
		"while no relay runs, UPDATE %[1]s_relay SET published = 0, gaps = '', swept = 0: %[3]w", o.sql.prefix, published, errUnsafe)
}

// postgresPositions asks the catalogues once, for they are slow to ask: the view
// pg_sequences, whose definition the CASE is taken from, costs a millisecond. What
// is published is read before the sequence, which may move meanwhile: a
// statement reads sequences as they are and tables as they were when it began.
const postgresPositions = `SELECT seqcache, seqincrement,
		coalesce((SELECT max(attnum) FILTER (WHERE attname = 'written_by') < max(attnum) FILTER (WHERE attname = 'position')
			FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname IN ('written_by', 'position')), false),
		coalesce(CASE WHEN has_sequence_privilege(seqrelid, 'SELECT,USAGE') THEN pg_sequence_last_value(seqrelid) END < published, false)
	FROM pg_sequence, {p}_relay WHERE singleton = 1 AND seqrelid = pg_get_serial_sequence($1::text, 'position')::regclass`

// checkPositions makes sure of what finding gaps stands on; see
// gapspostgres.go. On PostgreSQL it also reports whether the last position that was
// handed out is below what is published.
func (o *Outbox) checkPositions(ctx context.Context) (again bool, err error) {
	switch o.sql.dialect {
	case Postgres:
		var ordered bool
		var cache, step int64
		err := o.db.QueryRowContext(ctx, o.sql.positions, o.sql.prefix).Scan(&cache, &step, &ordered, &again)
		switch {
		case err != nil:
			return again, err
		case cache != 1 || step != 1:
			return again, fmt.Errorf("table %s: the sequence of column position must have CACHE 1 and INCREMENT 1, it has %d and %d: %w", o.sql.prefix, cache, step, errUnsafe)
		case !ordered:
			return again, fmt.Errorf("table %s: column written_by must stand before column position: %w", o.sql.prefix, errUnsafe)
		}
	case MySQL:
		var step int64
		if err := o.db.QueryRowContext(ctx, `SELECT @@auto_increment_increment`).Scan(&step); err != nil {
			return again, err
		}
		var name, isolation string
		if err := o.db.QueryRowContext(ctx, `SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')`).Scan(&name, &isolation); err != nil {
			return again, err
		}
		if isolation == "READ-UNCOMMITTED" {
			return again, fmt.Errorf("%s is %s, which shows what may yet be rolled back: %w", name, isolation, errUnsafe)
		}
		if step != 1 {
			return again, fmt.Errorf("auto_increment_increment is %d, as in a cluster with several primaries; it must be 1: %w", step, errUnsafe)
		}
	}
	return again, nil
}
