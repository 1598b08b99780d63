package divert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Diversion leads the frames of an interface through two taps, until it is closed
// or its process ends.
type Diversion struct {
	names [3]string // of the interface and the taps
	warn  func(format string, args ...any)

	netlink *netlink
	ports   *ebpf.Map

	net, host, ingress, egress attachment

	valve   valve
	passing bool    // frames are left alone
	seen    [3]port // the interface and the taps, as they were last looked at
	gone    bool    // that the interface is gone was reported

	opened, attached int
	counters         atomic.Pointer[string] // their line, for another goroutine
}

// attachment is a program at a hook of an interface.
type attachment struct {
	program *ebpf.Program
	hook    ebpf.AttachType
	index   int // of the interface, 0 for none
	link    link.Link
}

// follow attaches the program to the interface of an index, and takes it off the one
// that it was attached to. It is the first program there, so that others see a frame
// once: those at ingress behind the pipelines, those at egress too.
func (a *attachment) follow(index int) (err error) {
	if index == a.index {
		return nil
	}
	a.close()
	if index == 0 {
		return nil
	}
	a.link, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: a.program, Attach: a.hook, Anchor: link.Head()})
	if errors.Is(err, unix.ENODEV) {
		return nil // deleted meanwhile: there will be another event
	}
	if err != nil {
		return refused(err)
	}
	a.index = index
	return nil
}

func (a *attachment) close() {
	if a.link != nil {
		a.link.Close()
	}
	a.link, a.index = nil, 0
}

// New diverts the frames of an interface. It needs CAP_BPF and CAP_NET_ADMIN, and
// waits up to five seconds for a reader and a writer of each tap, or until stop becomes
// readable. Afterwards it needs no capability. Errors name the device.
func New(cfg Config, stop int, warn func(format string, args ...any)) (*Diversion, error) {
	d := &Diversion{names: [3]string{cfg.Interface, cfg.Net, cfg.Host}, warn: warn, valve: valve{open: cfg.Open}}
	var err error
	if d.netlink, err = newNetlink(); err != nil {
		return nil, err
	}
	if err := d.begin(stop); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Diversion) begin(stop int) error {
	await := func() error { return d.await(stop) }
	for _, step := range []func() error{d.refresh, d.check, d.load, await, d.follow} {
		if err := step(); err != nil {
			return err
		}
	}
	if d.gone {
		return fmt.Errorf("%s: it is gone", d.names[0])
	}
	return d.alone(1) // another one may have begun at the same time
}

// Close ends the diversion: first that of the interface, then those of the taps.
func (d *Diversion) Close() {
	for _, a := range []*attachment{&d.ingress, &d.egress, &d.net, &d.host} {
		a.close()
		a.program.Close()
	}
	d.ports.Close()
	d.netlink.close()
}

// refresh asks the kernel about the interface and the taps.
func (d *Diversion) refresh() (err error) {
	for i, name := range d.names {
		if d.seen[i], err = d.netlink.port(name); err != nil {
			return err
		}
	}
	return nil
}

// check refuses devices that cannot be diverted, or to.
func (d *Diversion) check() error {
	const add = "ip tuntap add dev %s mode tap user root multi_queue vnet_hdr && ip link set %s up"
	for i, name := range d.names {
		p := d.seen[i]
		switch {
		case p.index == 0 && i == 0:
			return cli.Hint(fmt.Errorf("%s: no such interface", name), "ip link shows those that there are")
		case p.index == 0:
			return cli.Hint(fmt.Errorf("%s: no such interface", name), add, name, name)
		case i > 0 && p.tap && p.tun:
			return cli.Hint(fmt.Errorf("%s is a tun: it carries IP packets, not Ethernet frames", name), "ip tuntap del dev %s mode tun; "+add, name, name, name)
		case i > 0 && !p.tap:
			return cli.Hint(fmt.Errorf("%s is not a tap", name), add, "tap0", "tap0")
		case !p.ethernet:
			return fmt.Errorf("%s is not an Ethernet interface", name)
		case slices.ContainsFunc(d.seen[:i], func(other port) bool { return other.index == p.index }):
			return fmt.Errorf("an interface and two taps are wanted, and %s is two of them", name)
		}
	}
	return d.alone(0)
}

// alone refuses devices of another diversion: two would lead frames in a circle. Each has a
// program at the ingress of each device, and own is how many this one has there. alone needs
// CAP_SYS_ADMIN, and finds none without.
func (d *Diversion) alone(own int) error {
	for i, name := range d.names {
		found, err := link.QueryPrograms(link.QueryOptions{Target: d.seen[i].index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			continue // attaching will fail, too, and say why
		}
		var ours []string
		for _, p := range found.Programs {
			if program := programName(p.ID); strings.HasPrefix(program, prefix) {
				ours = append(ours, program)
			}
		}
		if len(ours) > own {
			return cli.Hint(fmt.Errorf("%s is diverted already", name), "end the other tundivert, or pipeline.sh down; bpftool net shows its program %s", ours[0])
		}
	}
	return nil
}

// programName returns the name of a loaded program, or "" if it cannot be had.
func programName(id ebpf.ProgramID) string {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// await waits until both taps have a reader and a writer.
func (d *Diversion) await(stop int) error {
	fds := []fdio.PollFd{{Fd: int32(stop), Events: unix.POLLIN}}
	for start := time.Now(); ; {
		if err := d.refresh(); err != nil {
			return err
		}
		what := d.lacks()
		if what == "" {
			return nil
		}
		if time.Since(start) > patience {
			return cli.Hint(errors.New(what), "tunread %s | tunwrite %s & tunread %s | tunwrite %s &", d.names[1], d.names[2], d.names[2], d.names[1])
		}
		if _, err := fdio.Wait(fds, poll/4); err != nil {
			return err
		}
		if fds[0].Revents != 0 {
			return ErrStopped
		}
	}
}

// lacks returns why frames cannot pass the taps, or "".
func (d *Diversion) lacks() string {
	var all []string
	for i, name := range d.names {
		if what := d.seen[i].lacks(); i > 0 && what != "" {
			all = append(all, name+" "+what)
		}
	}
	return strings.Join(all, " and ")
}

// follow brings the programs to where the interfaces are now. The taps come before
// the interface, so that frames that go into them come out again.
func (d *Diversion) follow() error {
	for i, a := range []*attachment{&d.net, &d.host} {
		if err := a.follow(d.seen[1+i].index); err != nil {
			return fmt.Errorf("%s: %w", d.names[1+i], err)
		}
	}
	if err := d.update(); err != nil {
		return err
	}
	was := d.egress.index
	for _, a := range []*attachment{&d.ingress, &d.egress} {
		if err := a.follow(d.seen[0].index); err != nil {
			return fmt.Errorf("%s: %w", d.names[0], err)
		}
	}
	if now := d.egress.index; now != was && now != 0 {
		d.attached++
	}
	d.tell()
	return nil
}

// tell says it when the interface is gone, or back, and publishes the counters.
func (d *Diversion) tell() {
	gone, state := d.ingress.index == 0 || d.egress.index == 0, "diverting"
	switch {
	case gone:
		state = "waiting"
	case d.passing:
		state = "open"
	}
	line := fmt.Sprintf("state=%s opened=%d attached=%d", state, d.opened, d.attached)
	d.counters.Store(&line)
	switch {
	case gone == d.gone:
	case gone:
		d.warn("%s is gone; it is diverted again when it is back", d.names[0])
	case d.passing:
		d.warn("%s is back", d.names[0])
	default:
		d.warn("%s is back, and diverted again", d.names[0])
	}
	d.gone = gone
}

// update decides whether frames are diverted, and tells the programs.
func (d *Diversion) update() error {
	lacking, lacked, passed := d.lacks(), d.valve.lacking, d.passing
	d.passing = d.valve.passes(time.Now(), lacking)
	var p ports
	for i := range d.seen {
		p[i] = uint32(d.seen[i].index)
	}
	if !d.passing {
		p[atDivert] = 1
	}
	if err := d.ports.Put(uint32(0), p); err != nil {
		return fmt.Errorf("telling the programs: %w", err)
	}
	switch {
	case d.valve.closing:
	case d.passing && !passed:
		d.opened++
		d.warn("open: %s; the frames of %s pass by the taps", lacking, d.names[0])
	case !d.passing && passed:
		d.warn("closed: the frames of %s go through the taps again", d.names[0])
	case !d.passing && lacking != lacked && lacking != "":
		d.warn("%s; frames of %s are lost there", lacking, d.names[0])
	}
	return nil
}

// Run keeps the diversion as Config wants it, until stop becomes readable or the
// reader of out is gone. After a stop it leaves the frames alone at once, prints
// "ended", and waits for the frames in the pipelines: until no process writes to the taps, for a
// second at most.
func (d *Diversion) Run(stop, out int) error {
	fds := [3]fdio.PollFd{
		{Fd: int32(stop), Events: unix.POLLIN},
		{Fd: int32(out)},
		{Fd: int32(d.netlink.events), Events: unix.POLLIN},
	}
	var stopped time.Time
	for {
		wait := fdio.Forever
		switch {
		case d.valve.closing, d.passing && d.valve.lacking == "":
			wait = poll // for what ends soon
		case d.valve.open:
			wait = holdoff // the kernel tells of all changes; if it did not, a second would be lost
		}
		if _, err := fdio.Wait(fds[:], wait); err != nil {
			return err
		}
		if fdio.Broken(fds[1]) {
			return nil
		}
		asked := fds[0].Revents != 0
		if asked {
			d.valve.closing, stopped = true, time.Now()
			fds[0].Fd = -1 // asked once
		}
		if fds[2].Revents != 0 {
			d.netlink.drain()
		}
		if err := d.refresh(); err != nil {
			return err
		}
		for i, name := range d.names {
			if p := d.seen[i]; p.index != 0 && (!p.ethernet || i > 0 && !p.tap) {
				return fmt.Errorf("%s: another device has this name now", name)
			}
		}
		if err := d.follow(); err != nil {
			return err
		}
		if asked {
			_, _ = unix.Write(out, []byte("ended\n"))
		}
		if d.valve.closing && (d.seen[1].detached+d.seen[2].detached == 0 || time.Since(stopped) > linger) {
			return nil
		}
	}
}

// Counters is the line for SIGUSR1.
func (d *Diversion) Counters() string { return *d.counters.Load() }

// refused explains errors of bpf(2).
func refused(err error) error {
	var u unix.Utsname
	_ = unix.Uname(&u)
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return cli.Hint(fmt.Errorf("this kernel has no tcx hooks: it is %s, and 6.6 is needed", unix.ByteSliceToString(u.Release[:])),
			"shape between two taps that the machine's own bridges join: man pipeline.sh")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return cli.Hint(fmt.Errorf("bpf: %w", unix.EPERM), "run as root; a container needs CAP_BPF, CAP_NET_ADMIN and CAP_SETPCAP")
	}
	return err
}
