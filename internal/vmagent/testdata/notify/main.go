// Notify says READY=1 as an init does. It is a part of the test's template.
package main

import (
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, err = conn.Write([]byte("STATUS=up\nREADY=1\n"))
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}
