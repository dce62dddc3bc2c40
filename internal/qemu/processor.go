package qemu

import (
	"os"
	"strings"
)

// Processor is what the kernel says of the first processor, but for what changes.
func Processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	var kept []string
	for line := range strings.Lines(first) {
		if name, _, _ := strings.Cut(line, ":"); !strings.Contains(name, "MHz") && !strings.Contains(name, "bogomips") {
			kept = append(kept, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(kept, "\n")
}
