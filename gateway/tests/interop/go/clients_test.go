// The official SDK for Go, in both encodings, on two nodes that share one Redis.
package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

func TestConnect(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		c := dial.client(t, nodeA, centrifuge.Config{Token: token(claims{"sub": "ann"})})
		event := c.mustConnect(t)
		if event.ClientID == "" || event.Version == "" {
			t.Fatalf("no id or version in %+v", event)
		}
		if err := c.Disconnect(); err != nil {
			t.Fatal(err)
		}
		await(t, "the end", c.disconnected)
		c.mustConnect(t)
	})
}

func TestRefusedTokenIsFinal(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		good := token(claims{"sub": "mallory"})
		c := dial.client(t, nodeA, centrifuge.Config{Token: good[:len(good)-4] + "AAAA"})
		if err := c.Connect(); err != nil {
			t.Fatal(err)
		}
		equal(t, "code", await(t, "the end", c.disconnected).Code, 3500)
		equal(t, "state", c.State(), centrifuge.StateDisconnected)
	})
}

func TestExpiredTokenAsksForAnother(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		asked := make(chan bool, 10)
		c := dial.client(t, nodeA, centrifuge.Config{
			Token: token(claims{"sub": "ann", "exp": time.Now().Unix() - 60}),
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
				asked <- true
				return token(claims{"sub": "ann"}), nil
			},
		})
		c.mustConnect(t)
		equal(t, "questions", len(asked), 1)
	})
}

func TestConnectionIsRefreshed(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		asked := make(chan bool, 100)
		c := dial.client(t, nodeA, centrifuge.Config{GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			asked <- true
			return token(claims{"sub": "ann", "exp": time.Now().Unix() + 3}), nil
		}})
		c.mustConnect(t)
		for range 3 {
			await(t, "a question for a token", asked)
		}
		c.enter(t, unused("interop-"))
		equal(t, "connections", len(c.connecting), 1)
	})
}

func TestHeardOnTheOtherNode(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("interop-")
		speaker, listener := dial.online(t, nodeA, "ann"), dial.online(t, nodeB, "ben")
		mine, theirs := speaker.enter(t, room), listener.enter(t, room)
		for n := range 3 {
			if _, err := mine.Publish(patient(t), numbered(n)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 3 {
			mine.hears(t, n)
			info := theirs.hears(t, n).Info
			equal(t, "user", info.User, "ann")
			equal(t, "info", string(info.ConnInfo), `{"name":"ann"}`)
		}
	})
}

func TestSilenceAfterUnsubscribe(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("interop-")
		speaker, leaver, stayer := dial.online(t, nodeA, "ann"), dial.online(t, nodeB, "ben"), dial.online(t, nodeB, "cid")
		speaker.enter(t, room)
		left, stayed := leaver.enter(t, room), stayer.enter(t, room)
		speaker.say(t, room, 1)
		left.hears(t, 1)
		if err := left.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		await(t, "the end of the subscription", left.unsubscribed)
		_, err := leaver.Publish(patient(t), room, numbered(0))
		refused(t, err, 103)
		speaker.say(t, room, 2)
		stayed.hears(t, 1)
		stayed.hears(t, 2)
		// An answer behind the delivery: what was to come on this connection has come.
		_, err = leaver.Publish(patient(t), room, numbered(0))
		refused(t, err, 103)
		equal(t, "publications after the end", len(left.heard), 0)
	})
}

func TestPermissions(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		c := dial.online(t, nodeA, "ann")
		closed := c.ask(t, "closed:room", centrifuge.SubscriptionConfig{})
		equal(t, "code", await(t, "the refusal", closed.unsubscribed).Code, 103)
		undeclared := c.ask(t, "undeclared:room", centrifuge.SubscriptionConfig{})
		equal(t, "code", await(t, "the refusal", undeclared.unsubscribed).Code, 102)
		_, err := c.Publish(patient(t), unused("interop-"), numbered(1))
		refused(t, err, 103)
		room := unused("interop-")
		plain := c.enter(t, room)
		_, err = plain.Presence(patient(t))
		refused(t, err, 108)
		_, err = plain.History(patient(t))
		refused(t, err, 108)
	})
}

func TestSubscriptionToken(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		c := dial.online(t, nodeA, "ann")
		room := unused("closed:")
		granted := func(of claims) centrifuge.SubscriptionConfig {
			return centrifuge.SubscriptionConfig{GetToken: func(event centrifuge.SubscriptionTokenEvent) (string, error) {
				all := claims{"sub": "ann", "channel": event.Channel}
				for name, value := range of {
					all[name] = value
				}
				return token(all), nil
			}}
		}
		seat := c.ask(t, room, granted(nil))
		await(t, "the subscription", seat.subscribed)
		garbage := c.ask(t, unused("closed:"), centrifuge.SubscriptionConfig{Token: "garbage"})
		equal(t, "code", await(t, "the refusal", garbage.unsubscribed).Code, 103)
		// A token of somewhere or somebody else is a fault that ends the connection.
		for _, of := range []claims{{"channel": room}, {"sub": "ben"}} {
			c := dial.online(t, nodeA, "ann")
			c.ask(t, unused("closed:"), granted(of))
			equal(t, "code", await(t, "the end", c.disconnected).Code, 3500)
		}
	})
}

func TestSubscriptionIsRefreshed(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		c := dial.online(t, nodeA, "ann")
		asked := make(chan bool, 100)
		seat := c.ask(t, unused("closed:"), centrifuge.SubscriptionConfig{
			GetToken: func(event centrifuge.SubscriptionTokenEvent) (string, error) {
				asked <- true
				return token(claims{"sub": "ann", "channel": event.Channel, "exp": time.Now().Unix() + 3}), nil
			},
		})
		for range 3 {
			await(t, "a question for a token", asked)
		}
		equal(t, "subscriptions", len(seat.subscribed), 1)
		equal(t, "ends", len(seat.unsubscribed), 0)
	})
}

func TestPresenceJoinAndLeave(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("kept:")
		first, second := dial.online(t, nodeA, "ann"), dial.online(t, nodeB, "ben")
		watch := first.enter(t, room)
		equal(t, "who joined", await(t, "the first join", watch.joined).User, "ann")
		seat := second.enter(t, room)
		join := await(t, "the second join", watch.joined)
		equal(t, "who joined", join.User, "ben")
		equal(t, "info", string(join.ConnInfo), `{"name":"ben"}`)

		present, err := watch.Presence(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "clients present", len(present.Clients), 2)
		equal(t, "who is present", present.Clients[join.Client].User, "ben")
		stats, err := watch.PresenceStats(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "statistics", stats.PresenceStats, centrifuge.PresenceStats{NumClients: 2, NumUsers: 2})

		if err := seat.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		equal(t, "who left", await(t, "the leave", watch.left).Client, join.Client)
	})
}

func TestHistory(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("kept:")
		c := dial.online(t, nodeA, "ann")
		seat := c.enter(t, room)
		for n := 1; n <= 5; n++ {
			c.say(t, room, n)
		}
		top, err := seat.History(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "publications unasked", len(top.Publications), 0)
		equal(t, "top", top.Offset, 5)

		offsets := func(options ...centrifuge.HistoryOption) string {
			page, err := seat.History(patient(t), options...)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, publication := range page.Publications {
				equal(t, "data", string(publication.Data), string(numbered(int(publication.Offset))))
				all = append(all, fmt.Sprint(publication.Offset))
			}
			return strings.Join(all, " ")
		}
		since := centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: 3, Epoch: top.Epoch})
		limit, reverse := centrifuge.WithHistoryLimit, centrifuge.WithHistoryReverse(true)
		equal(t, "the first two", offsets(limit(2)), "1 2")
		equal(t, "the last two", offsets(limit(2), reverse), "5 4")
		equal(t, "after 3", offsets(limit(10), since), "4 5")
		equal(t, "before 3", offsets(limit(10), since, reverse), "2 1")
		_, err = seat.History(patient(t), centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: 3, Epoch: "other"}))
		refused(t, err, 112)
	})
}

// The client comes back at the other node, which has to know as well what it missed.
func TestRecoveryAfterACut(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("kept:")
		wire := newCable(t, nodeA)
		speaker, listener := dial.online(t, nodeA, "ann"), dial.online(t, wire.address, "ben")
		speaker.enter(t, room)
		seat := listener.ask(t, room, centrifuge.SubscriptionConfig{Recoverable: true})
		if !await(t, "the subscription", seat.subscribed).Recoverable {
			t.Fatal("not recoverable")
		}
		speaker.say(t, room, 0)
		seat.hears(t, 0)
		await(t, "the first attempt", listener.connecting)
		wire.cut()
		await(t, "the loss of the connection", listener.connecting)
		for n := 1; n < 10; n++ {
			speaker.say(t, room, n)
		}
		wire.mend(nodeB)
		event := await(t, "the subscription", seat.subscribed)
		if !event.WasRecovering || !event.Recovered {
			t.Fatalf("not recovered: %+v", event)
		}
		for n := 1; n < 10; n++ {
			equal(t, "offset", seat.hears(t, n).Offset, uint64(n+1))
		}
		speaker.say(t, room, 10)
		seat.hears(t, 10)
	})
}

// More was said than the room remembers: the client is told, and goes on from there.
func TestTooMuchMissed(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("brief:")
		wire := newCable(t, nodeA)
		speaker, listener := dial.online(t, nodeA, "ann"), dial.online(t, wire.address, "ben")
		speaker.enter(t, room)
		seat := listener.enter(t, room)
		speaker.say(t, room, 0)
		seat.hears(t, 0)
		await(t, "the first attempt", listener.connecting)
		wire.cut()
		await(t, "the loss of the connection", listener.connecting)
		for n := 1; n < 10; n++ {
			speaker.say(t, room, n)
		}
		wire.mend(nodeB)
		event := await(t, "the subscription", seat.subscribed)
		if !event.WasRecovering || event.Recovered {
			t.Fatalf("recovered what is not there: %+v", event)
		}
		equal(t, "top", event.StreamPosition.Offset, 10)
		speaker.say(t, room, 10)
		for {
			// What the room still remembers may come before.
			if heard := await(t, "publication 10", seat.heard); string(heard.Data) == string(numbered(10)) {
				return
			}
		}
	})
}

func TestDelta(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room, wire := unused("kept:"), newCable(t, nodeB)
		speaker, listener := dial.online(t, nodeA, "ann"), dial.online(t, wire.address, "ben")
		speaker.enter(t, room)
		seat := listener.ask(t, room, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil})
		await(t, "the subscription", seat.subscribed)
		filler := strings.Repeat("0123456789", 400)
		before := wire.down.Load()
		for n := range 20 {
			data := fmt.Appendf(nil, `{"n":%d,"filler":"%s ✓ %d"}`, n, filler, n*n)
			if _, err := speaker.Publish(patient(t), room, data); err != nil {
				t.Fatal(err)
			}
			equal(t, "publication", string(await(t, "the publication", seat.heard).Data), string(data))
		}
		if sent := wire.down.Load() - before; sent > int64(5*len(filler)) {
			t.Fatalf("20 publications of %d bytes took %d bytes: no deltas", len(filler), sent)
		}
	})
}

func TestServerSideSubscription(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		room := unused("kept:")
		c := dial.client(t, nodeB, centrifuge.Config{Token: token(claims{"sub": "ben", "channels": []string{room}})})
		subscribed := make(chan centrifuge.ServerSubscribedEvent, 10)
		heard := make(chan centrifuge.ServerPublicationEvent, 10)
		c.OnSubscribed(func(event centrifuge.ServerSubscribedEvent) { subscribed <- event })
		c.OnPublication(func(event centrifuge.ServerPublicationEvent) { heard <- event })
		c.mustConnect(t)
		equal(t, "room", await(t, "the subscription", subscribed).Channel, room)
		speaker := dial.online(t, nodeA, "ann")
		speaker.enter(t, room)
		speaker.say(t, room, 1)
		event := await(t, "the publication", heard)
		equal(t, "room", event.Channel, room)
		equal(t, "data", string(event.Data), string(numbered(1)))
	})
}

func TestNoRpcWithoutABackend(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		c := dial.online(t, nodeA, "ann")
		_, err := c.RPC(patient(t), "sum", []byte(`[1,2]`))
		refused(t, err, 108)
	})
}

func TestPingsAreAnswered(t *testing.T) {
	inBoth(t, func(t *testing.T, dial dialer) {
		wire := newCable(t, nodeA)
		c := dial.online(t, wire.address, "ann")
		// Nothing else is sent: what goes up are the answers. The third was sent long after a first one was due.
		said := wire.up.Load()
		for end := time.Now().Add(patience); wire.up.Load() < said+3; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("waited for three answers to pings")
			}
		}
		equal(t, "connections", len(c.connecting), 1)
		c.enter(t, unused("interop-"))
	})
}
