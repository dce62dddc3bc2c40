package cli

import (
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"io"
	"math/bits"
	"net"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// What RFB has for viewers that must give a password. It keeps those out who cannot
// read the connection, which on the loopback nobody but root can.
// Source: RFC 6143, sections 7.1 and 7.2.2.
const (
	rfbVersion    = "RFB 003.008\n"
	rfbNone       = 1
	rfbPassword   = 2
	maxPassword   = 8  // characters that count
	challengeSize = 16 // bytes
	rfbPatience   = 30 * time.Second
	wrongPassword = "the password is wrong"
)

// challenge asks a viewer for the password, as an RFB server does up to the point
// where the viewer says whether it shares the screen.
func challenge(viewer net.Conn, password string) error {
	_ = viewer.SetDeadline(time.Now().Add(rfbPatience))
	if err := swap(viewer, rfbVersion, make([]byte, len(rfbVersion))); err != nil {
		return err
	}
	var chosen [1]byte
	if err := swap(viewer, string([]byte{1, rfbPassword}), chosen[:]); err != nil {
		return err
	}
	if chosen[0] != rfbPassword {
		return fault.Deniedf("it gave no password")
	}
	var asked, answer [challengeSize]byte
	_, _ = rand.Read(asked[:]) // it never fails
	if err := swap(viewer, string(asked[:]), answer[:]); err != nil {
		return err
	}
	want, err := answerTo(asked, password)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want[:], answer[:]) != 1 {
		text := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(wrongPassword)))
		_, _ = viewer.Write(append(text, wrongPassword...))
		return fault.Deniedf(wrongPassword)
	}
	_, err = viewer.Write([]byte{0, 0, 0, 0})
	_ = viewer.SetDeadline(time.Time{})
	return err
}

// answerTo is what a viewer that knows the password answers. The bits of each byte
// of the key stand in the other order.
func answerTo(asked [challengeSize]byte, password string) (answer [challengeSize]byte, err error) {
	var key [maxPassword]byte
	copy(key[:], password)
	for i, b := range key {
		key[i] = bits.Reverse8(b)
	}
	block, err := des.NewCipher(key[:])
	if err != nil {
		return answer, fault.Internalf("make a key of a password: %w", err)
	}
	block.Encrypt(answer[:8], asked[:8])
	block.Encrypt(answer[8:], asked[8:])
	return answer, nil
}

// enter is what a viewer says to a server that asks for no password, up to the same
// point.
func enter(screen net.Conn) error {
	_ = screen.SetDeadline(time.Now().Add(rfbPatience))
	version := make([]byte, len(rfbVersion))
	if _, err := io.ReadFull(screen, version); err != nil {
		return fault.Wrap(err, "meet the screen")
	}
	var kinds [1]byte
	if err := swap(screen, rfbVersion, kinds[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(screen, make([]byte, kinds[0])); err != nil {
		return fault.Wrap(err, "meet the screen")
	}
	var result [4]byte
	if err := swap(screen, string([]byte{rfbNone}), result[:]); err != nil {
		return err
	}
	if result != [4]byte{} {
		return fault.Deniedf("the screen lets nobody in")
	}
	_ = screen.SetDeadline(time.Time{})
	return nil
}

// swap says something and reads the answer, as long as it is.
func swap(conn net.Conn, say string, answer []byte) error {
	if _, err := io.WriteString(conn, say); err != nil {
		return fault.Wrap(err, "meet the viewer")
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fault.Wrap(err, "meet the viewer")
	}
	return nil
}
