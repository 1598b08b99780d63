package main

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"framepipe/internal/traffic"
)

// The curve has the part at full speed and the paced part in their colours, and the mean of the quota.
func TestPicture(t *testing.T) {
	w := watcher{port: 400e6, quota: 75e6, window: 5 * time.Second, log: traffic.NewLog(length)}
	for at := range length / traffic.Bucket {
		w.log.Start = time.Now().Add(-at * traffic.Bucket)
		w.log.Add(map[bool]int{true: 500e3, false: 50e3}[at < 100]) // 400 Mbit/s for a second, then 40
	}
	picture := string(w.picture())
	if err := xml.Unmarshal([]byte(picture), &struct{}{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		">A port of 400 Mbit/s, held to 75.0 MB in any 5s<", ">120 Mbit/s<", `class="line quota" d="M56.0 208.0h648"`,
		`class="area free" d="M56 250.0h1V`, "V110.0h", "V236.0h",
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("no %q in\n%s", want, picture)
		}
	}
}
