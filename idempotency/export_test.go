package idempotency

// PruneStatement is the statement of one step of Prune.
func (i *Inbox) PruneStatement() string { return i.state.Prune }

// PruneFrom is where Prune goes on.
func (i *Inbox) PruneFrom() int64 { return max(0, i.pruned.Load()-pruneOverlap) }
