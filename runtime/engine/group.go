package engine

// group is the running requests that steps can compute together: those of one adapter set, since
// one set applies to a whole step, or one deterministic request. The owner goroutine alone uses it.
type group struct {
	set   *adapterSet
	alone *generation // the deterministic request; nil for those that share steps
	turn  int         // the last step made up for it; of a new group, the last before it came
	pace  pace        // of its own steps: those of others take another time
}

// group finds the group that a request runs in. That of the base set stays when nobody is in it,
// and others begin with what was measured there.
func (w *worker) group(g *generation) *group {
	switch {
	case g.r.KV.Deterministic:
		return &group{set: g.set, alone: g, turn: w.step.turn}
	case g.set.key == w.base.set.key:
		return w.base
	}
	for _, o := range w.running {
		if o.group.alone == nil && o.set.key == g.set.key {
			return o.group
		}
	}
	return &group{set: g.set, turn: w.step.turn, pace: w.base.pace}
}

// nextGroup chooses the group whose turn is longest ago, of equals the one whose request was
// admitted first. It is nil when none can be computed, or each has had its turn in this step. So a
// group waits for at most one step of each of the others, those that come meanwhile included.
func nextGroup(running []*generation, step int) *group {
	var next *group
	for _, g := range running {
		if g.group.turn < step && (next == nil || g.group.turn < next.turn) && !g.full() {
			next = g.group
		}
	}
	return next
}

// members counts the running requests of a group.
func (w *worker) members(of *group) int {
	n := 0
	for _, g := range w.running {
		if g.group == of {
			n++
		}
	}
	return n
}
