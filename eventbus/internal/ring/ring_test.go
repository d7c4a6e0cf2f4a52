package ring

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRingIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Ring[int]
		var model []int
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				x := rapid.Int().Draw(t, "x")
				r.Push(x)
				model = append(model, x)
			},
			"pop": func(t *rapid.T) {
				if len(model) == 0 {
					require.Panics(t, func() { r.Pop() })
					return
				}
				require.Equal(t, model[0], r.Pop())
				model = model[1:]
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), r.Len())
				for i, x := range model {
					require.Equal(t, x, r.At(i))
				}
			},
		})
	})
}
