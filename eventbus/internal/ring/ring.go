// Package ring is a first-in, first-out queue that reuses its space.
package ring

// Ring is a queue. The zero value is empty and ready to use. It is not safe for
// concurrent use.
type Ring[T any] struct {
	items []T // the length is zero or a power of two
	first int
	n     int
}

// Len returns the number of items.
func (r *Ring[T]) Len() int { return r.n }

// Push appends x.
func (r *Ring[T]) Push(x T) {
	if r.n == len(r.items) {
		r.grow()
	}
	r.items[(r.first+r.n)&(len(r.items)-1)] = x
	r.n++
}

func (r *Ring[T]) grow() {
	items := make([]T, max(16, 2*len(r.items)))
	for i := range r.n {
		items[i] = r.At(i)
	}
	r.items, r.first = items, 0
}

// At returns the i-th item, the first being 0. It panics when there is none.
func (r *Ring[T]) At(i int) T {
	if i < 0 || i >= r.n {
		panic("ring: index out of range")
	}
	return r.items[(r.first+i)&(len(r.items)-1)]
}

// Pop removes the first item and returns it. It panics when there is none.
func (r *Ring[T]) Pop() T {
	x := r.At(0)
	var zero T
	r.items[r.first] = zero
	r.first = (r.first + 1) & (len(r.items) - 1)
	r.n--
	return x
}
