package pgxsaga

// AlwaysInGroups has everything done by groups, even of one.
func AlwaysInGroups(s *Store) {
	s.commits.enough, s.commits.underWay = 1, 1
	s.loads.enough, s.loads.underWay = 1, 1
}
