package answer

import (
	"encoding/binary"
	"io"
	"sync"

	"github.com/strata-project/strata/internal/vmagent/control/meeting"
)

// MaxMessage bounds a message in either direction. Unit: bytes.
// Source: github.com/containerd/ttrpc, messageLengthMax.
const MaxMessage = 4 << 20

// HeaderSize is what stands before a message: its length, the number of the request, its
// type and flags. It and the types are ttrpc's.
// Source: github.com/containerd/ttrpc, PROTOCOL.md.
const (
	HeaderSize   = 10
	typeRequest  = 1
	typeResponse = 2
)

// atOnce is how many requests are worked on at a time.
const atOnce = 8

// Codes of a status that is not success. Source: google.golang.org/grpc/codes.
const (
	codeInvalid   = 3
	codeExhausted = 8
	codeUnknown   = 12 // unimplemented
)

// Service is the name that requests must have.
const Service = "strata.agent.v1.Agent"

// Handler answers one request of the service; ok is false where it has no such method.
type Handler func(method string, payload []byte) (reply Message, ok bool)

// Server answers hosts, one after the other.
type Server struct {
	handle Handler
	room   chan struct{}

	mu   sync.Mutex
	port io.Writer
	host int // counts sessions: answers to an earlier one are thrown away
	deaf bool
}

// NewServer returns a server that asks handle, from several goroutines.
func NewServer(handle Handler) *Server {
	return &Server{handle: handle, room: make(chan struct{}, atOnce)}
}

// Serve speaks on port until it ends, and returns why it did.
func (s *Server) Serve(port io.ReadWriter) error {
	s.meet(port)
	defer s.meet(nil)
	var (
		buf   []byte
		met   bool
		chunk = make([]byte, 16<<10)
	)
	for {
		n, err := port.Read(chunk)
		if n > 0 {
			from := max(0, len(buf)-meeting.Size) // a preamble may have come in pieces
			buf = append(buf, chunk[:n]...)
			if number, rest, ok := meeting.Find(buf[from:]); ok {
				buf, met = rest, true
				if err := s.greet(port, number); err != nil {
					return err
				}
			}
			if met {
				buf, met = s.requests(buf)
			}
			if !met {
				buf = append([]byte(nil), meeting.Keep(buf)...)
			} else if len(buf) == 0 {
				buf = nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// Deafen makes the server meet no host any more: what is asked already is answered,
// and another process will meet the next.
func (s *Server) Deafen() {
	s.mu.Lock()
	s.deaf = true
	s.mu.Unlock()
}

// Quiet waits until every answer is sent, and calls f with no request being worked
// on; those that come wait for f to return.
func (s *Server) Quiet(f func()) {
	for range atOnce {
		s.room <- struct{}{}
	}
	f()
	for range atOnce {
		<-s.room
	}
}

// meet makes port the one that answers go to.
func (s *Server) meet(port io.Writer) {
	s.mu.Lock()
	s.port = port
	s.host++
	s.mu.Unlock()
}

func (s *Server) greet(port io.Writer, number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host++
	if s.deaf {
		return nil
	}
	_, err := port.Write(meeting.Append(nil, number))
	return err
}

// requests takes the whole requests off the beginning of b and returns the rest;
// ok is false where b is malformed.
func (s *Server) requests(b []byte) (rest []byte, ok bool) {
	for len(b) >= HeaderSize {
		size := binary.BigEndian.Uint32(b)
		stream := binary.BigEndian.Uint32(b[4:])
		if size > MaxMessage || b[8] != typeRequest || stream%2 == 0 {
			return b, false
		}
		if len(b)-HeaderSize < int(size) {
			return b, true
		}
		s.request(stream, b[HeaderSize:HeaderSize+int(size)])
		b = b[HeaderSize+int(size):]
	}
	return b, true
}

// request works on one request, of which it keeps no byte.
func (s *Server) request(stream uint32, b []byte) {
	var service, method string
	var payload []byte
	ok := Read(b, func(field int, _ uint64, data []byte) {
		switch field {
		case 1:
			service = string(data)
		case 2:
			method = string(data)
		case 3:
			payload = append([]byte(nil), data...)
		}
	})
	s.mu.Lock()
	host := s.host
	s.mu.Unlock()
	if !ok {
		s.send(host, stream, status(codeInvalid, "the request is malformed"))
		return
	}
	s.room <- struct{}{}
	go func() {
		defer func() { <-s.room }()
		var reply Message
		if service == Service {
			reply, ok = s.handle(method, payload)
		}
		if service != Service || !ok {
			s.send(host, stream, status(codeUnknown, "the agent has no such method"))
			return
		}
		var response Message
		response.Bytes(2, reply)
		if len(response) > MaxMessage {
			response = status(codeExhausted, "the answer is longer than 4 MiB")
		}
		s.send(host, stream, response)
	}()
}

// status returns a response that says what is wrong.
func status(code int64, message string) Message {
	var s, response Message
	s.Int(1, code)
	s.Text(2, message)
	response.Bytes(1, s)
	return response
}

// send writes a response, if the host that asked is still there.
func (s *Server) send(host int, stream uint32, response Message) {
	b := make([]byte, HeaderSize, HeaderSize+len(response))
	binary.BigEndian.PutUint32(b, uint32(len(response)))
	binary.BigEndian.PutUint32(b[4:], stream)
	b[8] = typeResponse
	b = append(b, response...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != nil && s.host == host {
		_, _ = s.port.Write(b) // a port that has ended shows when it is read
	}
}
