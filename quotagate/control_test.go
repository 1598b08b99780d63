package main

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"framepipe/frame"
	"framepipe/internal/gate"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
)

// A budget is a token bucket, for frames of all sizes and times: it passes a frame if its tokens suffice,
// and only then.
func TestAllowance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const perByte = 1e9 / controlRate
		gap := rapid.Int64Range(1, 1e10).Draw(t, "gap")
		now := rapid.Int64Range(0, gate.MaxTime/2).Draw(t, "start")
		var a allowance
		tokens := int64(controlBurst * perByte)
		for range 300 {
			step := rapid.Int64Range(0, gap).Draw(t, "step")
			now += step
			tokens = min(tokens+step, controlBurst*perByte)
			cost := rapid.Int64Range(64, 1563).Draw(t, "bytes")
			took := a.take(now, packet.ARP, true, cost)
			if cost *= perByte; took != (cost <= tokens) {
				t.Fatalf("took %d of %d: %v", cost, tokens, took)
			}
			if took {
				tokens -= cost
			}
		}
		if !a.take(now, packet.ARP, false, controlBurst) || !a.take(now, packet.LLDP, true, controlBurst) {
			t.Fatal("another budget was taken from")
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
	n := 2000 * len(all)
	stream := records(n, length/time.Duration(n), func(i int) (o, f []byte) { return nil, all[i%len(all)] })
	for _, policy := range []gate.Policy{gate.Pace, gate.Random} {
		cfg := quota
		cfg.Policy = policy
		_, s, err := through(t, cfg, stream, nil)
		budgets := int64(len(all)) * (controlBurst + int64(controlRate*length.Seconds()))
		if control := int64(s.Control.Bytes); err != nil || control > budgets || control < budgets*9/10 {
			t.Errorf("policy %v: %d bytes of control passed, of budgets of %d, %v", policy, control, budgets, err)
		}
		if most := 11*cfg.Quota + budgets; int64(s.Passed.Bytes) > most || int64(s.In.Bytes) < most*5/4 {
			t.Errorf("policy %v: %d bytes of %d passed, at most %d may", policy, s.Passed.Bytes, s.In.Bytes, most)
		}
	}
}

// A packet is unmetered if both of its addresses are: a forged one does not suffice.
func TestUnmetered(t *testing.T) {
	f := &filter{unmetered: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("fd00::/64"),
	}}
	for _, tt := range []struct {
		src, dst string
		want     bool
	}{
		{"10.0.0.1", "10.0.0.2", true},
		{"198.51.100.7", "10.0.0.2", true},
		{"10.0.0.1", "203.0.113.1", false},
		{"203.0.113.1", "10.0.0.1", false},
		{"fd00::1", "fd00::2", true},
		{"2001:db8::1", "fd00::1", false},
	} {
		src, dst := netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)
		b := packettest.Spec{UDP: true, V6: src.Is6()}.Frame()
		at := 14 + 12
		if src.Is6() {
			at = 14 + 8
		}
		copy(b[at:], slices.Concat(src.AsSlice(), dst.AsSlice()))
		if p, _, err := f.look(&frame.Record{Frame: b}, len(b)); err != nil || p.Unmetered != tt.want {
			t.Errorf("from %s to %s: unmetered %v, %v", tt.src, tt.dst, p.Unmetered, err)
		}
	}
}

// Unmetered frames take nothing from a budget. A frame of which only a part has come, and a super-frame, are
// not control.
func TestNoControl(t *testing.T) {
	a, b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	f := &filter{unmetered: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}}
	for name, tt := range map[string]struct {
		rec     frame.Record
		missing int
	}{
		"unmetered":     {frame.Record{Frame: packettest.Solicitation(a, b, b)}, 0},
		"a part":        {frame.Record{Frame: packettest.ARP(2)}, 1},
		"a super-frame": {frame.Record{Frame: packettest.ARP(2), Offload: []byte{0, 1, 0, 0, 1, 0, 0, 0, 0, 0}}, 0},
	} {
		p, _, _ := f.look(&tt.rec, len(tt.rec.Frame)+tt.missing)
		if p.Control || f.control != (allowance{}) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
