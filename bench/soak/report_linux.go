package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"framepipe/internal/cli"
)

// tally counts the runs that were killed and that drained, and their unexplained frames.
func tally(runs []*run) (kills, drained, unexplained int) {
	for _, r := range runs {
		unexplained += len(r.complaints())
		if r.killed == "" {
			drained++
		} else {
			kills++
		}
	}
	return kills, drained, unexplained
}

// size writes bytes for people.
func size(n int64) string { return cli.Human(float64(n), "B") }

// report prints the result. Its error lists the differences.
func (s *soak) report(traffic counters) error {
	var complaints []string
	var runs []*run
	for _, d := range s.both {
		runs = append(runs, d.runs...)
	}
	for _, r := range runs {
		complaints = append(complaints, r.complaints()...)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...any) {
		for _, c := range cells[:len(cells)-1] {
			fmt.Fprintf(w, "%v\t", c)
		}
		fmt.Fprintf(w, " %v\n", cells[len(cells)-1]) // to the left, as the last cell of a line is
	}
	kills, drained, _ := tally(runs)
	open, shut := 0, 0
	for _, d := range s.both {
		open, shut = open+d.open, shut+d.shut
	}
	fmt.Printf("\n%v of traffic; %d kills and %d drained; the gates were open %d%% of the time\n\n",
		time.Since(s.begun).Round(time.Second), kills, drained, 100*open/max(open+shut, 1))

	fmt.Printf("  bulk          %d flows, %s received\n", traffic["bulk_flows"], size(traffic["bulk_bytes"]))
	fmt.Printf("  connections   %d; %d failed or broke off\n", traffic["connections"], traffic["refused"])
	fmt.Printf("  datagrams     %d of 0 to 9000 bytes and %d small ones sent, %d received\n", traffic["datagrams"], traffic["small"], traffic["received"])
	fmt.Printf("  pings         %d, %d answered\n", traffic["pings"], traffic["pongs"])
	lost := counters{}
	for _, r := range runs {
		lost.add(r.gate)
		lost.add(r.write)
	}
	fmt.Printf("  dropped       by the gates %d early, %d as a queue was full, %d over the quota; refused by a tap %d\n",
		lost["dropped_early"], lost["dropped_full"], lost["dropped_quota"], lost["refused"])
	fmt.Printf("  other bytes than were sent: %d\n\n", traffic["wrong"])
	if traffic["wrong"] > 0 {
		complaints = append(complaints, "other bytes came than were sent")
	}
	for _, what := range []string{"bulk_bytes", "connections", "datagrams", "small", "received", "pongs"} {
		if traffic[what] == 0 {
			complaints = append(complaints, "the traffic counts no "+what)
		}
	}

	type sums struct {
		link
		unexplained int64
	}
	var order []string
	by := map[string]*sums{}
	for _, r := range runs {
		for _, l := range r.links() {
			key := l.what + l.unit
			if by[key] == nil {
				by[key] = &sums{link: link{what: l.what, unit: l.unit}}
				order = append(order, key)
			}
			x := by[key]
			x.from, x.to, x.unexplained = x.from+l.from, x.to+l.to, x.unexplained+l.unexplained()
		}
	}
	rank := func(key string) int { return slices.Index(places, by[key].what) }
	slices.SortStableFunc(order, func(a, b string) int { return rank(a) - rank(b) })
	row("the one", "the other", "under way", "unexplained", "")
	for _, key := range order {
		x := by[key]
		row(x.from, x.to, x.lost(), x.unexplained, x.what+", "+x.unit)
	}
	w.Flush()

	fmt.Println()
	row("", "lives", "longest", "memory: at first", "at last", "most", "descriptors", "at last", "most", "")
	for _, d := range s.both {
		for _, name := range stages {
			f := flat(name, d.lives[name], min(5*time.Second, s.length/20))
			row("", f.lives, f.longest.Round(time.Second), fmt.Sprintf("%.1f MB", mb(f.first)), fmt.Sprintf("%.1f MB", mb(f.final)), fmt.Sprintf("%.1f MB", mb(f.most)),
				f.files, f.filesAtLast, f.mostFiles, name+" "+d.name)
			for _, c := range f.complaints {
				complaints = append(complaints, d.name+": "+c)
			}
			if f.files == 0 {
				complaints = append(complaints, d.name+": "+name+" was not looked at often enough")
			}
		}
	}
	w.Flush()

	if len(complaints) > 0 {
		fmt.Printf("\n%s\n", strings.Join(complaints, "\n"))
		return errUnexplained
	}
	fmt.Printf("\nno frame and no byte is unexplained; memory and descriptors are flat\n")
	return nil
}
