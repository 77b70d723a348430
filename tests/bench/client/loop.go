package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

const (
	bufferBytes       = 512 << 10
	eventsPerTurn     = 256
	sourceConnections = 5_000 // from one loopback address; the next ones come from another
	bindNoPort        = 24    // IP_BIND_ADDRESS_NO_PORT: the port is chosen when both ends are known
)

// A session is one connection of the loop; ready reads once and says whether it is over, which ended is then told.
type session interface {
	ready(buffer []byte) (over bool)
	ended()
}

// A loop reads all its sessions in one thread, each with one read() per wake-up: a goroutine for each
// would need twice the system calls, on cores that the server is measured on.
type loop struct {
	epoll    int
	sessions []session // by descriptor
	open     int
	buffer   []byte
	events   []syscall.EpollEvent
}

func newLoop() *loop {
	epoll, err := syscall.EpollCreate1(0)
	must(err)
	return &loop{epoll: epoll, buffer: make([]byte, bufferBytes), events: make([]syscall.EpollEvent, eventsPerTurn)}
}

func (l *loop) add(fd int, one session) {
	for len(l.sessions) <= fd {
		l.sessions = append(l.sessions, nil)
	}
	l.sessions[fd] = one
	l.open++
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	must(syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event))
}

// turn waits for at most that long and serves whoever has something; false: nobody had.
func (l *loop) turn(timeoutMs int) bool {
	count, err := syscall.EpollWait(l.epoll, l.events, timeoutMs)
	if err == syscall.EINTR {
		return true
	}
	must(err)
	for _, event := range l.events[:count] {
		fd := int(event.Fd)
		if l.sessions[fd].ready(l.buffer) {
			l.sessions[fd].ended()
			must(syscall.Close(fd))
			l.sessions[fd] = nil
			l.open--
		}
	}
	return count > 0
}

// connect returns a non-blocking connection, from one of several loopback addresses: one has only some
// 28,000 ports, and those of connections just closed are not free yet.
func connect(address string, number int) int { return dial(address, number, nil) }

// dial is connect for a socket that prepare has had first.
func dial(address string, number int, prepare func(fd int)) int {
	host, text, err := net.SplitHostPort(address)
	must(err)
	port, err := strconv.Atoi(text)
	must(err)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(err)
	must(syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindNoPort, 1))
	must(syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
	must(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + number/sourceConnections)}}))
	if prepare != nil {
		prepare(fd)
	}
	remote := syscall.SockaddrInet4{Port: port}
	copy(remote.Addr[:], net.ParseIP(host).To4())
	for {
		if err = syscall.Connect(fd, &remote); err != syscall.EINTR {
			break
		}
	}
	must(err)
	must(syscall.SetNonblock(fd, true))
	return fd
}

// send writes a few bytes, which always fit into a socket that nothing else was written to.
func send(fd int, data []byte) {
	count, err := syscall.Write(fd, data)
	if err == nil && count != len(data) {
		err = fmt.Errorf("%d of %d bytes were written", count, len(data))
	}
	if err != nil && err != syscall.EPIPE && err != syscall.ECONNRESET { // then the next read says so
		must(err)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
