package budget

// Gate is the simulation's gate, for tests outside of the package.
type Gate = shaper

// NewGate returns a gate that paces above a threshold.
func NewGate(b *Budget, threshold float64) *Gate { return &Gate{b: b, threshold: threshold} }

// Slot returns how many of the bytes offered in a slot pass.
func (g *Gate) Slot(lane int, t, offered int64) int64 { return g.slot(lane, t, offered, 0) }
