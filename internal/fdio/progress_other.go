//go:build !linux

package fdio

func (w *watched) share(int) {}

func (w *watched) gather([][]byte) []byte { return nil }

func (w *watched) write(int, []byte) (int, error) { return 0, nil }
