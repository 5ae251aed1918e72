package store

import (
	"slices"
	"strings"
)

const nearMax = 3

// unknown is the error for a name that nobody knows, with the nearest names as its hint; path says
// that a path could have been given, too.
func (s *Store) unknown(n Name, path bool) error {
	known, _, _ := s.names() // the hint is best effort
	for _, e := range s.o.Catalogue.Models {
		known = append(append(known, e.Name), e.Aliases...)
	}
	hint := "`norion list --all` shows the names."
	if near := nearest(n.String(), known); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	if path {
		hint += " A path to a .gguf file works too"
	}
	hint = strings.TrimSuffix(hint, ".")
	return &Error{Kind: ErrUnknownModel, Name: n.String(), Hint: hint}
}

// nearest returns at most nearMax names like s, the likest first.
func nearest(s string, known []Name) []string {
	type scored struct {
		name string
		cost int
	}
	var near []scored
	family, _, _ := strings.Cut(s, ":")
	for _, k := range known {
		cost := distance(s, k.s)
		kf, _, _ := strings.Cut(k.s, ":")
		switch {
		case cost <= max(2, len(s)/4):
		case kf == family, strings.Contains(k.s, s):
			cost += len(s) // like, but only after every spelling mistake
		default:
			continue
		}
		if !slices.ContainsFunc(near, func(x scored) bool { return x.name == k.s }) {
			near = append(near, scored{k.s, cost})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int {
		if a.cost != b.cost {
			return a.cost - b.cost
		}
		return strings.Compare(a.name, b.name)
	})
	out := make([]string, 0, nearMax)
	for _, x := range near[:min(nearMax, len(near))] {
		out = append(out, x.name)
	}
	return out
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
