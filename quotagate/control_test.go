package main

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"framepipe/frame"
	"framepipe/internal/gate"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
)

// Whatever the frames and their times, a budget gives in any span no more than what it
// saves up and what it has in that time, and a frame that it refuses has to wait for no
// more than its own bytes.
func TestAllowance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		gap := rapid.Int64Range(1, 1e10).Draw(t, "gap")
		now := rapid.Int64Range(0, gate.MaxTime/2).Draw(t, "start")
		var a allowance
		type taken struct {
			at    int64
			bytes float64
		}
		var all []taken
		for range 300 {
			now += rng.Int64N(gap)
			bytes := 64 + rng.Int64N(1500)
			if a.take(now, packet.ARP, true, bytes) {
				all = append(all, taken{now, float64(bytes)})
				continue
			}
			if b := a; !b.take(now+bytes*1e9/controlRate, packet.ARP, true, bytes) {
				t.Fatal("refused although the bucket got as many bytes")
			}
		}
		if !a.take(now, packet.ARP, false, controlBurst) || !a.take(now, packet.LLDP, true, controlBurst) {
			t.Fatal("another budget was taken from")
		}
		for i := range all {
			sum := 0.0
			for _, x := range all[i:] {
				sum += x.bytes
				if most := controlBurst + controlRate*float64(x.at-all[i].at)/1e9; sum > most+1e-3 {
					t.Fatalf("%v bytes in %d ns, more than %v", sum, x.at-all[i].at, most)
				}
			}
		}
	})
}

// floods are frames of each budget, as large as they may be.
func floods() (all [][]byte) {
	mac := func(dst string, rest ...byte) []byte { return append([]byte(dst+"\x02\x00\x00\x00\x00\x01"), rest...) }
	fill := func(f []byte, n int) []byte { return append(f, make([]byte, n-len(f))...) }
	arp := packettest.ARP(2)
	reply := bytes.Clone(arp)
	copy(reply, "\x02\x00\x00\x00\x00\x02")
	reply[21] = 2
	src, target := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	solicit := packettest.Solicitation(src, target, target)
	group := packettest.Solicitation(src, netip.MustParseAddr("ff02::1:ff00:2"), target)
	return [][]byte{
		arp, reply, solicit, group,
		fill(mac("\x01\x80\xc2\x00\x00\x0e", 0x88, 0xcc, 2, 7), 14+1500),
		fill(mac("\x01\x80\xc2\x00\x00\x02", 0x88, 0x09, 1), 14+110),
		fill(mac("\x01\x80\xc2\x00\x00\x03", 0x88, 0x8e, 1, 0, 5, 0xd8), 14+1500),
		fill(mac("\xff\xff\xff\xff\xff\xff", 0x88, 0x63, 0x11, 9, 0, 0, 5, 0xd6), 14+1500),
		fill(mac("\x01\x00\x0c\xcc\xcc\xcc", 5, 0xdc, 0xaa, 0xaa, 3, 0, 0, 0xc, 0x20), 14+1500),
		fill(mac("\x01\x80\xc2\x00\x00\x00", 5, 0xdc, 0x42, 0x42, 3), 14+1500),
		fill(mac("\x02\x00\x00\x00\x00\x02", 0x88, 0x64, 0x11, 0, 0, 1, 5, 0xd6, 0xc0, 0x21, 9, 1, 5, 0xd4), 14+1500),
	}
}

// Floods that look like control traffic, of one kind or all, pass within the quota, but for
// the budgets. Of each kind a few frames pass in each second.
func TestFloodsOfControl(t *testing.T) {
	all := floods()
	const length = 10 * time.Second // ten windows
	stream := records(len(all)*8_000, length/time.Duration(len(all)*8_000), func(i int) (o, f []byte) { return nil, all[i%len(all)] })
	for _, policy := range []gate.Policy{gate.Pace, gate.Random} {
		cfg := quota
		cfg.Policy = policy
		out, s, err := through(t, cfg, stream, nil)
		if err != nil {
			t.Fatal(err)
		}
		most := int64(len(all)) * (controlBurst + int64(controlRate*length.Seconds()))
		if n := int64(s.Control.Bytes); n > most || n < most*9/10 {
			t.Errorf("policy %v: %d bytes of control passed, of budgets of %d", policy, n, most)
		}
		var times, sizes []int64
		read(t, out, func(r *frame.Record) {
			times, sizes = append(times, int64(r.Time)), append(sizes, max(int64(len(r.Frame)), 60)+4)
		})
		// A held frame keeps the time at which it came.
		window := int64(cfg.Window - 2*cfg.Queue)
		budget := int64(len(all)) * (controlBurst + controlRate)
		for first, last, sum := 0, 0, int64(0); last < len(times); last++ {
			for sum += sizes[last]; times[last]-times[first] > window; first++ {
				sum -= sizes[first]
			}
			if sum > cfg.Quota+budget {
				t.Fatalf("policy %v: %d bytes passed in a window, of a quota of %d and budgets of %d", policy, sum, cfg.Quota, budget)
			}
		}
	}
}

// A packet is unmetered if both of its addresses are: a forged one does not suffice.
func TestUnmetered(t *testing.T) {
	f := &filter{unmetered: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("fd00::/64")}}
	for _, tt := range []struct {
		src, dst string
		want     bool
	}{
		{"10.0.0.1", "10.0.0.2", true},
		{"198.51.100.7", "10.0.0.2", true},
		{"10.0.0.2", "198.51.100.7", true},
		{"10.0.0.1", "203.0.113.1", false},
		{"203.0.113.1", "10.0.0.1", false},
		{"198.51.100.7", "203.0.113.1", false},
		{"203.0.113.1", "203.0.113.2", false},
		{"fd00::1", "fd00::2", true},
		{"fd00::1", "2001:db8::1", false},
		{"2001:db8::1", "fd00::1", false},
	} {
		src, dst := netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)
		b := packettest.Spec{UDP: true, V6: src.Is6()}.Frame()
		at := 14 + 12
		if src.Is6() {
			at = 14 + 8
		}
		copy(b[at:], src.AsSlice())
		copy(b[at+src.BitLen()/8:], dst.AsSlice())
		if p, _, err := f.look(&frame.Record{Frame: b}, len(b)); err != nil || p.Unmetered != tt.want {
			t.Errorf("from %s to %s: unmetered %v, %v", tt.src, tt.dst, p.Unmetered, err)
		}
	}
	// What is unmetered takes nothing from a budget.
	to := netip.MustParseAddr("fd00::2")
	b := packettest.Solicitation(netip.MustParseAddr("fd00::1"), to, to)
	if p, _, _ := f.look(&frame.Record{Frame: b}, len(b)); !p.Unmetered || f.control != (allowance{}) {
		t.Errorf("%+v", p)
	}
}

// Of a frame that has not come whole nothing is known, and a super-frame is no control.
func TestNoControl(t *testing.T) {
	f := &filter{}
	b := packettest.ARP(2)
	for name, rec := range map[string]frame.Record{
		"a part":        {Frame: b},
		"a super-frame": {Frame: b, Offload: []byte{0, 1, 0, 0, 1, 0, 0, 0, 0, 0}},
	} {
		size := len(b)
		if rec.Offload == nil {
			size++
		}
		if p, _, _ := f.look(&rec, size); p.Control || f.control != (allowance{}) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
