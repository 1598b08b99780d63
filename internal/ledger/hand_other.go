//go:build !linux

package ledger

func bootID() uint64 { return hash(nil) }

func (l *Ledger) lock(int) bool { return false }

func (l *Ledger) unlock(int) {}

func (l *Ledger) locked(int) bool { return true }
