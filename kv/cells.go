package kv

import "slices"

// run is a stretch of cells that the same sequences have, at the same positions.
type run struct {
	cells int
	refs  int
	mark  uint64
}

// cells are the books of all cells. A cell that several sequences have counts once.
type cells struct {
	used  int
	stamp uint64
	of    []*sequence
}

// grow gives s more cells of its own at its end.
func (c *cells) grow(s *sequence, n int) {
	c.used += n
	if last := len(s.runs) - 1; last >= 0 && s.runs[last].refs == 1 {
		s.runs[last].cells += n
		return
	}
	if n > 0 {
		s.runs = append(s.runs, &run{cells: n, refs: 1})
	}
}

// at gives the index of the run of s that begins at a position. It divides one where it must, for
// every sequence that has it.
func (c *cells) at(s *sequence, pos int) int {
	for i, r := range s.runs {
		if pos == 0 {
			return i
		}
		if pos < r.cells {
			c.divide(r, pos)
			return i + 1
		}
		pos -= r.cells
	}
	return len(s.runs)
}

func (c *cells) divide(r *run, at int) {
	rest := &run{cells: r.cells - at, refs: r.refs}
	r.cells = at
	for _, s := range c.of {
		if i := slices.Index(s.runs, r); i >= 0 {
			s.runs = slices.Insert(s.runs, i+1, rest)
		}
	}
}

// remove takes the cells at p0..p1 from s.
func (c *cells) remove(s *sequence, p0, p1 int) {
	first := c.at(s, p0)
	last := c.at(s, p1)
	for _, r := range s.runs[first:last] {
		if r.refs--; r.refs == 0 {
			c.used -= r.cells
		}
	}
	s.runs = slices.Delete(s.runs, first, last)
}

// share lets to, which has none, have the first n cells of from.
func (c *cells) share(from, to *sequence, n int) {
	to.runs = append(to.runs, from.runs[:c.at(from, n)]...)
	for _, r := range to.runs {
		r.refs++
	}
}

// shared is how many cells of s, from a position on, others have too.
func (c *cells) shared(s *sequence, pos int) int {
	n := 0
	for _, r := range s.runs {
		if r.refs > 1 {
			n += max(0, r.cells-max(0, pos))
		}
		pos -= r.cells
	}
	return n
}

// own gives s cells that no other has, as many as it has.
func (c *cells) own(s *sequence) {
	n := len(s.tokens)
	c.remove(s, 0, n)
	c.grow(s, n)
}

// merge joins neighbouring runs that only s has.
func (c *cells) merge(s *sequence) {
	out := s.runs[:0]
	for _, r := range s.runs {
		if last := len(out) - 1; last >= 0 && r.refs == 1 && out[last].refs == 1 {
			out[last].cells += r.cells
		} else {
			out = append(out, r)
		}
	}
	clear(s.runs[len(out):])
	s.runs = out
}

// begin starts a count of cells.
func (c *cells) begin() { c.stamp++ }

// count is how many of the first n cells of s were not yet counted.
func (c *cells) count(s *sequence, n int) int {
	sum := 0
	for _, r := range s.runs {
		if n <= 0 {
			break
		}
		if r.mark != c.stamp {
			sum += min(n, r.cells)
			if n >= r.cells {
				r.mark = c.stamp
			}
		}
		n -= r.cells
	}
	return sum
}
