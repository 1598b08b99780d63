package tap

import "errors"

const Headroom = 16

type Mode uint8

const (
	Auto Mode = iota
	On
	Off
)

type Config struct {
	Name    string
	L3      bool
	Write   bool
	Offload Mode
}

type Device struct {
	fd      int
	vnet    bool
	offload bool
}

func (d *Device) Fd() int       { return d.fd }
func (d *Device) VNetHdr() bool { return d.vnet }
func (d *Device) Offload() bool { return d.offload }

func (m Mode) MarshalText() ([]byte, error) { return []byte([...]string{"auto", "on", "off"}[m]), nil }
func (m *Mode) UnmarshalText(b []byte) error {
	switch string(b) {
	case "auto":
		*m = Auto
	case "on", "true":
		*m = On
	case "off", "false":
		*m = Off
	default:
		return errors.New("want auto, on or off")
	}
	return nil
}
