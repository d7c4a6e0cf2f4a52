package sqlbus

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// commitBackoff is the longest wait after failures to commit.
const commitBackoff = 2 * time.Second

// commitLoop commits progress until ctx ends.
func (c *consumer) commitLoop(ctx context.Context) {
	failures := 0
	for wait(ctx, c.moved, time.Hour) {
		err := c.commit(ctx, false)
		pause := c.b.store.dialect.commitEvery
		if err != nil && ctx.Err() == nil {
			c.complain("progress could not be stored", err)
			failures++
			pause = jitter(min(pause<<min(failures, 10), commitBackoff))
			poke(c.moved)
		} else {
			failures = 0
		}
		wait(ctx, nil, pause)
	}
}

// commit stores how far each partition is. With release set it takes those
// whose lanes are withdrawn, and gives them up. Partitions that turn out to be
// lost are dropped.
func (c *consumer) commit(ctx context.Context, release bool) error {
	c.storing.Lock()
	defer c.storing.Unlock()
	var advances []advance
	for _, p := range c.partitions() {
		if release && !p.withdrawn.Load() {
			continue
		}
		if a, ok := p.advance(release); ok {
			advances = append(advances, a)
		}
	}
	if len(advances) == 0 {
		return nil
	}
	// Rows are locked in the same order by everybody.
	slices.SortFunc(advances, func(a, b advance) int { return cmp.Compare(a.part.number, b.part.number) })
	lost := map[*partition]bool{}
	err := c.b.engine.do(ctx, c.group(), func(s *session) error {
		clear(lost)
		for _, a := range advances {
			ours, err := c.store(s, a, release)
			if err != nil {
				return err
			}
			lost[a.part] = !ours
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.committed(advances, lost, release)
	if c.hungry.Load() {
		poke(c.awake)
	}
	return nil
}

// store writes the progress of one partition, unless its token says that it is
// not ours any more.
func (c *consumer) store(s *session, a advance, release bool) (ours bool, err error) {
	query := `UPDATE millrace_groups SET "cursor" = CASE WHEN "cursor" < ? THEN ? ELSE "cursor" END WHERE topic = ? AND group_name = ? AND "partition" = ? AND token = ?`
	if release {
		query = `UPDATE millrace_groups SET "cursor" = CASE WHEN "cursor" < ? THEN ? ELSE "cursor" END, owner = NULL WHERE topic = ? AND group_name = ? AND "partition" = ? AND token = ?`
	}
	n, err := s.exec(query, a.cursor, a.cursor, c.sub.Topic, c.sub.Group, a.part.number, a.part.token)
	if err != nil || n == 0 {
		return false, err
	}
	return true, c.storeExceptions(s, a)
}

// storeExceptions removes those that a makes obsolete and adds those that are
// needed: an event that is acked while it is above the cursor must not be read
// again by the next owner.
func (c *consumer) storeExceptions(s *session, a advance) error {
	var below, above numbers
	for _, position := range a.acked {
		if position > a.cursor {
			above = append(above, position)
		} else {
			below = append(below, position)
		}
	}
	if err := c.eachStep(below, func(step numbers) error {
		_, err := s.exec("DELETE FROM millrace_exceptions WHERE topic = ? AND group_name = ? AND position {in}", c.sub.Topic, c.sub.Group, step)
		return err
	}); err != nil {
		return err
	}
	if err := c.eachStep(above, func(step numbers) error {
		_, err := s.exec("UPDATE millrace_exceptions SET due_at = NULL WHERE topic = ? AND group_name = ? AND position {in}", c.sub.Topic, c.sub.Group, step)
		return err
	}); err != nil {
		return err
	}
	if a.leftover {
		_, err := s.exec(`DELETE FROM millrace_exceptions WHERE topic = ? AND group_name = ? AND due_at IS NULL AND "partition" = ? AND position <= ?`,
			c.sub.Topic, c.sub.Group, a.part.number, a.cursor)
		if err != nil {
			return err
		}
	}
	return c.eachStep(a.above, func(step numbers) error { return c.storeSettled(s, a.part, step) })
}

// storeSettled leaves what is there: redeliveries, and what it wrote when it ran before.
func (c *consumer) storeSettled(s *session, p *partition, positions numbers) error {
	d, rows, args := c.b.store.dialect, make([]string, len(positions)), make([]any, 0, 4*len(positions))
	for i, position := range positions {
		rows[i] = "(?, ?, ?, ?, 0)"
		args = append(args, c.sub.Topic, c.sub.Group, position, p.number)
	}
	_, err := s.exec(d.insertNew+` INTO millrace_exceptions (topic, group_name, position, "partition", attempt) VALUES `+strings.Join(rows, ", ")+d.unlessThere, args...)
	return err
}

// listStep is how many positions one statement names.
const listStep = 256

func (c *consumer) eachStep(list numbers, do func(numbers) error) error {
	for step := range slices.Chunk(list, listStep) {
		if err := do(step); err != nil {
			return err
		}
	}
	return nil
}

func (c *consumer) committed(advances []advance, lost map[*partition]bool, release bool) {
	c.hands.Lock()
	defer c.hands.Unlock()
	for _, a := range advances {
		switch {
		case lost[a.part]:
			c.log.Warn("sqlbus: a partition was lost to another member", "partition", a.part.number)
			c.drop(a.part)
		case release:
			c.remove(a.part)
		default:
			a.part.committed(a)
		}
	}
}
