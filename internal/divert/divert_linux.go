package divert

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
	cfg  Config
	warn func(format string, args ...any)

	netlink *netlink
	ports   *ebpf.Map

	net, host, ingress, egress attachment

	valve   valve
	seen    [3]port // the interface and the taps, as they were last looked at
	lacking string  // that was reported
	gone    bool    // that the interface is gone was reported

	// For Counters, which another goroutine calls.
	state            atomic.Pointer[string]
	opened, attached atomic.Uint64
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
// waits up to Patience for a reader and a writer of each tap, or until stop becomes
// readable. Afterwards it needs no capability. Errors name the device.
func New(cfg Config, stop int, warn func(format string, args ...any)) (_ *Diversion, err error) {
	d := &Diversion{cfg: cfg, warn: warn}
	d.net.hook, d.host.hook = ebpf.AttachTCXIngress, ebpf.AttachTCXIngress
	d.ingress.hook, d.egress.hook = ebpf.AttachTCXIngress, ebpf.AttachTCXEgress
	d.valve.open = cfg.Open
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.netlink, err = newNetlink(); err != nil {
		return nil, err
	}
	if err := d.refresh(); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if err := d.load(rand.Uint32N(1<<32-1) + 1); err != nil { // any mark but none
		return nil, err
	}
	if err := d.await(stop); err != nil {
		return nil, err
	}
	if err := d.follow(); err != nil {
		return nil, err
	}
	if d.ingress.link == nil || d.egress.link == nil {
		return nil, fmt.Errorf("%s: it is gone", cfg.Interface)
	}
	for i, name := range d.names() { // another one may have begun at the same time
		if names := ours(d.seen[i].index); len(names) > 1 {
			return nil, already(name, names[0])
		}
	}
	return d, nil
}

// Close ends the diversion: first that of the interface, then those of the taps.
func (d *Diversion) Close() {
	for _, a := range []*attachment{&d.ingress, &d.egress, &d.net, &d.host} {
		a.close()
		if a.program != nil {
			a.program.Close()
		}
	}
	if d.ports != nil {
		d.ports.Close()
	}
	if d.netlink != nil {
		d.netlink.close()
	}
}

// names are those of the interface and the taps, in the order of seen.
func (d *Diversion) names() [3]string { return [3]string{d.cfg.Interface, d.cfg.Net, d.cfg.Host} }

// refresh asks the kernel about the interface and the taps.
func (d *Diversion) refresh() (err error) {
	for i, name := range d.names() {
		if d.seen[i], err = d.netlink.port(name); err != nil {
			return err
		}
	}
	return nil
}

// check refuses devices that cannot be diverted, or to.
func (d *Diversion) check() error {
	const add = "ip tuntap add dev %s mode tap user root multi_queue vnet_hdr && ip link set %s up"
	for i, name := range d.names() {
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
		if names := ours(p.index); len(names) > 0 {
			return already(name, names[0])
		}
	}
	return nil
}

// already is the error of a device that has a program of another diversion: two would
// lead frames in a circle.
func already(device, program string) error {
	return cli.Hint(fmt.Errorf("%s is diverted already", device), "end the other tundivert, or pipeline.sh down; bpftool net shows its program %s", program)
}

// ours returns the names of the programs of diversions at an interface: each has one at ingress.
// It needs CAP_SYS_ADMIN, and finds none without.
func ours(index int) (names []string) {
	found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil // attaching will fail, too, and say why
	}
	for _, p := range found.Programs {
		program, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			continue
		}
		info, err := program.Info()
		program.Close()
		if err != nil {
			continue
		}
		switch info.Name {
		case nameIngress, nameNet, nameHost:
			names = append(names, info.Name)
		}
	}
	return names
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
		if time.Since(start) > Patience {
			return cli.Hint(errors.New(what), "tunread %s | tunwrite %s & tunread %s | tunwrite %s &", d.cfg.Net, d.cfg.Host, d.cfg.Host, d.cfg.Net)
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
	for i, name := range d.names() {
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
			return fmt.Errorf("%s: %w", d.names()[1+i], err)
		}
	}
	if err := d.update(); err != nil {
		return err
	}
	was := d.egress.index
	for _, a := range []*attachment{&d.ingress, &d.egress} {
		if err := a.follow(d.seen[0].index); err != nil {
			return fmt.Errorf("%s: %w", d.cfg.Interface, err)
		}
	}
	if now := d.egress.index; now != was && now != 0 {
		d.attached.Add(1)
	}
	d.tell()
	return nil
}

// tell says it when the interface is gone, or back.
func (d *Diversion) tell() {
	gone, state := d.ingress.index == 0 || d.egress.index == 0, "diverting"
	switch {
	case gone:
		state = "waiting"
	case d.valve.passing:
		state = "open"
	}
	d.state.Store(&state)
	switch {
	case gone == d.gone:
	case gone:
		d.warn("%s is gone; it is diverted again when it is back", d.cfg.Interface)
	case d.valve.passing:
		d.warn("%s is back", d.cfg.Interface)
	default:
		d.warn("%s is back, and diverted again", d.cfg.Interface)
	}
	d.gone = gone
}

// update decides whether frames are diverted, and tells the programs.
func (d *Diversion) update() error {
	lacking := d.lacks()
	divert, changed := d.valve.decide(time.Now(), lacking != "")
	p := ports{
		Interface: uint32(d.seen[0].index),
		Net:       uint32(d.seen[1].index),
		Host:      uint32(d.seen[2].index),
	}
	if divert {
		p.Divert = 1
	}
	if err := d.ports.Put(uint32(0), p); err != nil {
		return fmt.Errorf("telling the programs: %w", err)
	}
	switch {
	case d.valve.closing:
	case changed && !divert:
		d.opened.Add(1)
		d.warn("open: %s; the frames of %s pass by the taps", lacking, d.cfg.Interface)
	case changed:
		d.warn("closed: the frames of %s go through the taps again", d.cfg.Interface)
	case divert && lacking != d.lacking && lacking != "":
		d.warn("%s; frames of %s are lost there", lacking, d.cfg.Interface)
	}
	d.lacking = lacking
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
		case d.valve.closing, d.valve.passing && d.lacking == "":
			wait = poll // for what ends soon
		case d.cfg.Open:
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
		for i, name := range d.names() {
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
		if d.valve.closing && (!d.seen[1].written() && !d.seen[2].written() || time.Since(stopped) > linger) {
			return nil
		}
	}
}

// Counters is the line for SIGUSR1.
func (d *Diversion) Counters() string {
	return fmt.Sprintf("state=%s opened=%d attached=%d", *d.state.Load(), d.opened.Load(), d.attached.Load())
}

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
