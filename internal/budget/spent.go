package budget

import "slices"

// spent finds the level that will be billed in any case. For every slot in which the samples of
// a poller may begin, its phase, it keeps the highest samples of the cycle: one more
// than the provider discards. The least of them is the least that the phase bills.
type spent struct {
	most   int // samples kept of each phase
	phases [Slots][]int64
}

// add counts the sample that begins in slot k. A window has some number of slots.
func (s *spent) add(k, slots, bytes int64) {
	p := &s.phases[k-FloorDiv(k, slots)*slots]
	if len(*p) == s.most {
		if bytes <= (*p)[0] {
			return
		}
		*p = slices.Delete(*p, 0, 1)
	}
	i, _ := slices.BinarySearch(*p, bytes)
	*p = slices.Insert(*p, i, bytes)
}

// level returns the least that any phase of a poller bills, 0 if that is within the quota for some.
func (s *spent) level(b *Budget) int64 {
	least := int64(unlimited)
	for i := range b.slots {
		switch p := s.phases[i]; {
		case !b.cfg.Poller.polls(i*b.slot, b.slot, b.cfg.Window):
		case len(p) < s.most:
			return 0
		default:
			least = min(least, p[0])
		}
	}
	return least
}

// observe counts the samples of slot k, which can no longer change.
func (b *Budget) observe(k int64) {
	c := &b.cycles[1]
	if b.cfg.Hard || k*b.slot < c.start || (k+b.span)*b.slot > c.end {
		return
	}
	var most [lanes]int64
	for l := range b.cfg.Lanes {
		bill := 0
		if b.cfg.Separate {
			bill = l
		}
		if x := &b.passed[l]; x.in(k, k+b.span-1) > b.cfg.Quota { // few do
			most[bill] = max(most[bill], b.least(x, k))
		}
	}
	for i, bytes := range most {
		if bytes > b.cfg.Quota {
			b.spent[i].add(k, b.slots, bytes)
		}
	}
}

// least returns the fewest bytes that the shortest sample can have that begins in slot k.
func (b *Budget) least(x *sums, k int64) int64 {
	shortest, _, _ := b.cfg.Poller.Samples(b.cfg.Window, b.cfg.Quota)
	length, start, least := int64(shortest), k*b.slot, int64(unlimited)
	for _, at := range [...]int64{start, start + b.slot - length%b.slot, start + b.slot} { // changes evenly in between
		least = min(least, b.until(x, at+length)-b.until(x, at))
	}
	return least
}

// until returns the bytes of a lane up to an instant, if those of a slot are spread evenly over it.
func (b *Budget) until(x *sums, instant int64) int64 {
	i := FloorDiv(instant, b.slot)
	return x[at(i-1)] + muldiv(x.in(i, i), instant-i*b.slot, b.slot)
}

// Quota returns the bytes that a window may hold now: Config.Quota, or if more than that will
// be billed in any case, as much.
func (b *Budget) Quota(now int64) int64 {
	b.Advance(now)
	if b.cfg.Hard {
		return b.cfg.Quota
	}
	return max(b.cfg.Quota, b.spent[0].level(b), b.spent[1].level(b))
}
