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
	if errors.Is(err, errNoTables) || errors.Is(err, dialect.ErrNewer) || errors.Is(err, errUnsafe) {
		return err
	}
	return nil // a database that is away for a moment is no reason to fail
}

// begunAgain reports a log whose positions have begun again, below what is
// published: the relay would not see what is written there.
func (o *Outbox) begunAgain(published int64) error {
	return fmt.Errorf("table %[1]s: positions have begun again below %[2]d, up to which all is published, as after TRUNCATE or a restore without sequences; "+
		"while no relay runs, UPDATE %[1]s_relay SET published = 0, gaps = '', swept = 0: %[3]w", o.sql.prefix, published, errUnsafe)
}

// checkRows looks for rows where all are deleted.
func (o *Outbox) checkRows(ctx context.Context) error {
	var token, published, swept int64
	var missing []byte
	if err := o.db.QueryRowContext(ctx, o.sql.taken).Scan(&token, &published, &missing, &swept); err != nil {
		return err
	}
	again := false
	if err := o.db.QueryRowContext(ctx, o.sql.below, swept).Scan(&again); err != nil || !again {
		return err
	}
	return o.begunAgain(published)
}

// postgresPositions asks the catalogues once, for they are slow to ask: the view
// pg_sequences, whose definition the CASE is taken from, costs a millisecond. What
// is published is read before the sequence, which may move meanwhile: a
// statement reads sequences as they are and tables as they were when it began.
const postgresPositions = `SELECT seqcache, seqincrement,
		coalesce((SELECT max(attnum) FILTER (WHERE attname = 'written_by') < max(attnum) FILTER (WHERE attname = 'position')
			FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname IN ('written_by', 'position')), false),
		coalesce(CASE WHEN has_sequence_privilege(seqrelid, 'SELECT,USAGE') THEN pg_sequence_last_value(seqrelid) END < published, false)
			OR EXISTS (SELECT 1 FROM {p} WHERE position <= swept), published
	FROM pg_sequence, {p}_relay WHERE singleton = 1 AND seqrelid = pg_get_serial_sequence($1::text, 'position')::regclass`

// checkPositions makes sure of what finding gaps stands on, see gapspostgres.go,
// and that positions have not begun again.
func (o *Outbox) checkPositions(ctx context.Context) error {
	switch o.sql.dialect {
	case Postgres:
		return o.checkPostgres(ctx)
	case MySQL:
		if err := o.checkMySQL(ctx); err != nil {
			return err
		}
	}
	return o.checkRows(ctx)
}

func (o *Outbox) checkPostgres(ctx context.Context) error {
	var ordered, again bool
	var cache, step, published int64
	err := o.db.QueryRowContext(ctx, o.sql.positions, o.sql.prefix).Scan(&cache, &step, &ordered, &again, &published)
	switch {
	case err != nil:
		return err
	case cache != 1 || step != 1:
		return fmt.Errorf("table %s: the sequence of column position must have CACHE 1 and INCREMENT 1, it has %d and %d: %w", o.sql.prefix, cache, step, errUnsafe)
	case !ordered:
		return fmt.Errorf("table %s: column written_by must stand before column position: %w", o.sql.prefix, errUnsafe)
	case again:
		return o.begunAgain(published)
	}
	return nil
}

func (o *Outbox) checkMySQL(ctx context.Context) error {
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
	return nil
}
