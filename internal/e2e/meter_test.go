package e2e

const meterFile = "FRAMEPIPE_METER"

func meter(string) int { return 0 }
