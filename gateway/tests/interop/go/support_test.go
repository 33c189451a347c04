// What the tests need beside the SDK: tokens, waiting, clients whose events can be awaited, and a cable that can be cut.
package interop

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

const patience = 20 * time.Second

var (
	nodeA  = os.Getenv("INTEROP_A")
	nodeB  = os.Getenv("INTEROP_B")
	secret = os.Getenv("INTEROP_SECRET")
)

type claims map[string]any

// token signs claims; unless they say otherwise it is good for an hour.
func token(all claims) string {
	whole := claims{"exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range all {
		whole[name] = value
	}
	body, err := json.Marshal(whole)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(body)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

func unused(prefix string) string {
	return prefix + rand.Text()
}

// await takes the next of what happened, past or to come.
func await[T any](t *testing.T, what string, happened <-chan T) T {
	t.Helper()
	select {
	case event := <-happened:
		return event
	case <-time.After(patience):
		t.Fatalf("waited for %s", what)
		panic("unreachable")
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// refused checks that the server said no with this code.
func refused(t *testing.T, err error, code uint32) {
	t.Helper()
	var reply *centrifuge.Error
	if !errors.As(err, &reply) {
		t.Fatalf("got %v, want error %d of the server", err, code)
	}
	equal(t, "code", reply.Code, code)
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// inBoth runs a case in either encoding, beside all others.
func inBoth(t *testing.T, run func(t *testing.T, dial dialer)) {
	t.Parallel()
	for name, dial := range map[string]dialer{"json": centrifuge.NewJsonClient, "protobuf": centrifuge.NewProtobufClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, dial)
		})
	}
}

type dialer func(endpoint string, config centrifuge.Config) *centrifuge.Client

// client is one of the SDK's, with its events in channels.
type client struct {
	*centrifuge.Client
	connected    chan centrifuge.ConnectedEvent
	connecting   chan centrifuge.ConnectingEvent
	disconnected chan centrifuge.DisconnectedEvent
}

// client makes one that is not connected yet.
func (dial dialer) client(t *testing.T, address string, config centrifuge.Config) *client {
	config.HandshakeTimeout, config.ReadTimeout, config.WriteTimeout = patience, patience, patience
	config.MaxReconnectDelay = 300 * time.Millisecond
	c := &client{
		Client:       dial("ws://"+address+"/connection/websocket", config),
		connected:    make(chan centrifuge.ConnectedEvent, 100),
		connecting:   make(chan centrifuge.ConnectingEvent, 100),
		disconnected: make(chan centrifuge.DisconnectedEvent, 100),
	}
	c.OnConnected(func(event centrifuge.ConnectedEvent) { c.connected <- event })
	c.OnConnecting(func(event centrifuge.ConnectingEvent) { c.connecting <- event })
	c.OnDisconnected(func(event centrifuge.DisconnectedEvent) { c.disconnected <- event })
	t.Cleanup(c.Close)
	return c
}

// online makes one that is connected as this user.
func (dial dialer) online(t *testing.T, address, user string) *client {
	c := dial.client(t, address, centrifuge.Config{Token: token(claims{"sub": user, "info": claims{"name": user}})})
	c.mustConnect(t)
	return c
}

func (c *client) mustConnect(t *testing.T) centrifuge.ConnectedEvent {
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return await(t, "the connection", c.connected)
}

// seat is a subscription, with its events in channels.
type seat struct {
	*centrifuge.Subscription
	subscribed   chan centrifuge.SubscribedEvent
	unsubscribed chan centrifuge.UnsubscribedEvent
	heard        chan centrifuge.PublicationEvent
	joined       chan centrifuge.JoinEvent
	left         chan centrifuge.LeaveEvent
	failed       chan error
}

// ask begins to subscribe.
func (c *client) ask(t *testing.T, room string, config centrifuge.SubscriptionConfig) *seat {
	subscription, err := c.NewSubscription(room, config)
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{
		Subscription: subscription,
		subscribed:   make(chan centrifuge.SubscribedEvent, 100),
		unsubscribed: make(chan centrifuge.UnsubscribedEvent, 100),
		heard:        make(chan centrifuge.PublicationEvent, 1000),
		joined:       make(chan centrifuge.JoinEvent, 100),
		left:         make(chan centrifuge.LeaveEvent, 100),
		failed:       make(chan error, 100),
	}
	s.OnSubscribed(func(event centrifuge.SubscribedEvent) { s.subscribed <- event })
	s.OnUnsubscribed(func(event centrifuge.UnsubscribedEvent) { s.unsubscribed <- event })
	s.OnPublication(func(event centrifuge.PublicationEvent) { s.heard <- event })
	s.OnJoin(func(event centrifuge.JoinEvent) { s.joined <- event })
	s.OnLeave(func(event centrifuge.LeaveEvent) { s.left <- event })
	s.OnError(func(event centrifuge.SubscriptionErrorEvent) { s.failed <- event.Error })
	if err := s.Subscribe(); err != nil {
		t.Fatal(err)
	}
	return s
}

// enter returns when the server has taken the subscription.
func (c *client) enter(t *testing.T, room string) *seat {
	s := c.ask(t, room, centrifuge.SubscriptionConfig{})
	await(t, "the subscription", s.subscribed)
	return s
}

func numbered(n int) []byte {
	return fmt.Appendf(nil, `{"n":%d}`, n)
}

// say publishes {"n":…}.
func (c *client) say(t *testing.T, room string, n int) {
	t.Helper()
	if _, err := c.Publish(patient(t), room, numbered(n)); err != nil {
		t.Fatal(err)
	}
}

// hears checks that this is what comes next.
func (s *seat) hears(t *testing.T, n int) centrifuge.PublicationEvent {
	t.Helper()
	event := await(t, fmt.Sprintf("publication %d", n), s.heard)
	equal(t, "publication", string(event.Data), string(numbered(n)))
	return event
}

// cable passes bytes between clients and a node, until it is cut; then nobody gets through until it is mended.
type cable struct {
	address string
	down    atomic.Int64 // Bytes that went to clients.
	up      atomic.Int64 // How often something went to the node.

	lock   sync.Mutex
	target string
	open   []net.Conn
}

func newCable(t *testing.T, target string) *cable {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	c := &cable{address: listener.Addr().String(), target: target}
	t.Cleanup(func() {
		listener.Close()
		c.cut()
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			c.join(near)
		}
	}()
	return c
}

func (c *cable) join(near net.Conn) {
	c.lock.Lock()
	defer c.lock.Unlock()
	far, err := net.Dial("tcp", c.target)
	if err != nil {
		near.Close()
		return
	}
	c.open = append(c.open, near, far)
	go pass(near, far, func(n int) { c.up.Add(1) })
	go pass(far, near, func(n int) { c.down.Add(int64(n)) })
}

func pass(from, to net.Conn, count func(int)) {
	defer from.Close()
	defer to.Close()
	io.Copy(to, io.TeeReader(from, counter(count)))
}

type counter func(int)

func (count counter) Write(bytes []byte) (int, error) {
	count(len(bytes))
	return len(bytes), nil
}

func (c *cable) cut() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.target = ""
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}

func (c *cable) mend(target string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.target = target
}
