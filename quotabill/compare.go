package main

import (
	"fmt"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
	"framepipe/internal/samples"
)

// compare lays the samples of a provider over a ledger.
func (j *job) compare(ports []samples.Port) error {
	ledger, err := j.fromLedger(j.ledger, time.Now().UnixNano())
	if err != nil {
		return err
	}
	s := ports[0].Samples
	if s.Slot < time.Duration(j.window.Duration) {
		return fmt.Errorf("samples of %v are shorter than the ledger's windows of %v", cli.Duration(s.Slot), j.window.Duration)
	}
	c, err := bill.Compare(s, ledger, j.terms.Poller.Jitter, j.calendar.Zone)
	if err != nil {
		return err
	}
	return j.write(c, j.ledger)
}
