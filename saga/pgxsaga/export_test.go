package pgxsaga

// AlwaysInGroups has everything done by groups, even of one.
func AlwaysInGroups(s *Store) {
	s.commits.limits = limits{singles: 0, enough: 1}
	s.loads.limits = s.commits.limits
}

// InGroupsOf has groups begin with n members, when there is anything else under way.
func InGroupsOf(s *Store, n int) {
	s.commits.limits = limits{singles: 1, enough: n}
	s.loads.limits = s.commits.limits
}
