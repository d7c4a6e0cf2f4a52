package sagatest

// NewWorld returns a world in which nothing goes wrong.
func NewWorld() *World { return newWorld() }

// Alternate returns e with two orchestrators that take turns, each of which
// remembers what it has seen.
func Alternate(e Exploration) Exploration {
	e.alternate = true
	return e
}
