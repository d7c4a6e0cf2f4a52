package saga

// ListStatement is what List executes for q.
func ListStatement(d Dialect, q Query) (string, []any) {
	return newListStatements(d, "millrace_saga").of(q)
}

// CountStatement is what Count executes.
func CountStatement(d Dialect) string { return newStatements(d, "millrace_saga").count }
