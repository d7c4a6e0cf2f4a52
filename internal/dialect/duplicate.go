package dialect

// IsDuplicateKey reports whether err says that a row with the same unique key
// is there already.
func (d Dialect) IsDuplicateKey(err error) bool {
	if err == nil {
		return false
	}
	switch d {
	case Postgres:
		return state(err) == "23505"
	case MySQL:
		return mentions(err, "Error 1062")
	}
	return mentions(err, "UNIQUE constraint failed")
}
