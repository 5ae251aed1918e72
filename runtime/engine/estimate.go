package engine

import "math"

// estimate fits time = a*x + b*y with a, b >= 0 to measurements that come one by one: least squares
// over weighted sums, in which older measurements count less and less (Haykin, Adaptive Filter
// Theory, 4th ed., section 9.3, as normal equations), and one that is far off counts by its
// distance, not by its square (Huber, Annals of Mathematical Statistics 35, 1964). The variance of
// a time is taken to grow with x. The zero value has measured nothing.
type estimate struct {
	keep float64 // what one measurement leaves of the weight of those before; 0 means keepDefault

	n                      float64 // sum of weights
	xx, xy, yy, xt, yt, tt float64
	spread                 float64 // mean distance of a measurement, as a share of what was expected
	a, b                   float64
}

// Bounds of an estimate.
const (
	keepDefault = 0.98
	measureMax  = 1e18
	knownMin    = 8 // weight of measurements before anything is said
	huber       = 3 // spreads from which a measurement is far off
	spreadMin   = 0.02
	spreadFirst = 0.5
	spreadShare = 0.1  // of the latest measurement
	singular    = 1e-3 // 1 - the square of the correlation of x and y, below which they are one
)

// add takes in that x and y took t. x below 1, and what is negative or beyond all reason, is no
// measurement and left out.
func (e *estimate) add(x, y, t float64) {
	if !(x >= 1 && x <= measureMax && y >= 0 && y <= measureMax && t >= 0 && t <= measureMax) {
		return
	}
	keep := e.keep
	if keep == 0 {
		keep = keepDefault
	}
	w := e.weigh(x, y, t)
	for _, sum := range [...]*float64{&e.n, &e.xx, &e.xy, &e.yy, &e.xt, &e.yt, &e.tt} {
		*sum *= keep
	}
	e.n += w
	w /= x
	e.xx, e.xy, e.yy = e.xx+w*x*x, e.xy+w*x*y, e.yy+w*y*y
	e.xt, e.yt, e.tt = e.xt+w*x*t, e.yt+w*y*t, e.tt+w*t*t
	e.solve()
}

// weigh is how much a measurement counts.
func (e *estimate) weigh(x, y, t float64) float64 {
	want := e.a*x + e.b*y
	if want <= 0 || e.n < 2 {
		return 1
	}
	if e.spread == 0 {
		e.spread = spreadFirst
	}
	off, far := math.Abs(t-want)/want, huber*e.spread
	e.spread += spreadShare * (min(off, far) - e.spread)
	e.spread = max(e.spread, spreadMin)
	if off <= far {
		return 1
	}
	return far / off
}

// solve gives the least squares within a, b >= 0: inside, or on the border where that is better.
func (e *estimate) solve() {
	e.a, e.b = e.xt/e.xx, 0
	det := e.det()
	if det == 0 {
		return
	}
	a, b := (e.xt*e.yy-e.yt*e.xy)/det, (e.yt*e.xx-e.xt*e.xy)/det
	switch {
	case a >= 0 && b >= 0:
		e.a, e.b = a, b
	case a < 0:
		e.a, e.b = 0, e.yt/e.yy
	}
}

// det is the determinant of the normal equations, 0 where x and y were always in one proportion.
func (e *estimate) det() float64 {
	if det := e.xx*e.yy - e.xy*e.xy; det > singular*e.xx*e.yy {
		return det
	}
	return 0
}

// known says whether there are enough measurements.
func (e *estimate) known() bool { return e.n >= knownMin && e.a+e.b > 0 }

// at is the time expected for x and y, 0 while it is not known.
func (e *estimate) at(x, y float64) float64 {
	if !e.known() {
		return 0
	}
	return e.a*x + e.b*y
}

// sure is what y costs at least: b less two standard errors, 0 where that is nothing.
func (e *estimate) sure() float64 {
	det := e.det()
	if !e.known() || det == 0 {
		return 0
	}
	rest := e.tt - 2*(e.a*e.xt+e.b*e.yt) + e.a*e.a*e.xx + 2*e.a*e.b*e.xy + e.b*e.b*e.yy
	variance := max(0, rest) / (e.n - 2) * e.xx / det
	return max(0, e.b-2*math.Sqrt(variance))
}
