package saga

// ListStatement is what List executes for q.
func ListStatement(d Dialect, q Query) (string, []any) {
	return newListStatements(d, "millrace_saga").of(q)
}
