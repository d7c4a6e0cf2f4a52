package saga

import "sync"

// cache remembers instances as they were last seen. What it says may be out of
// date, which a Commit finds out. It holds two generations of entries; a full
// one is forgotten after the next.
type cache struct {
	size int

	mu       sync.Mutex
	new, old map[[2]string]Instance
}

func newCache(size int) *cache { return &cache{size: size / 2, new: map[[2]string]Instance{}} }

func (c *cache) get(saga, id string) (Instance, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := [2]string{saga, id}
	if i, ok := c.new[k]; ok {
		return i, true
	}
	i, ok := c.old[k]
	return i, ok
}

func (c *cache) put(i Instance) {
	if c.size <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := [2]string{i.Saga, i.ID}
	delete(c.old, k)
	if i.Status.Ended() {
		delete(c.new, k)
		return
	}
	if len(c.new) >= c.size {
		c.old, c.new = c.new, map[[2]string]Instance{}
	}
	c.new[k] = i
}

func (c *cache) drop(saga, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.new, [2]string{saga, id})
	delete(c.old, [2]string{saga, id})
}
