import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.ClientState;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PresenceResult;
import io.github.centrifugal.centrifuge.PresenceStatsResult;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** The official SDK for Java, which speaks Protobuf. */
class SdkTest extends Clients {
    /** Options whose getter makes a token each time it is asked, and counts. */
    private static Options asking(AtomicInteger asked, Supplier<String> token) {
        var options = new Options();
        options.setTokenGetter(new ConnectionTokenGetter() {
            @Override
            public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                asked.incrementAndGet();
                callback.Done(null, token.get());
            }
        });
        return options;
    }

    private static SubscriptionOptions granted(Function<String, Map<String, Object>> claims) {
        var options = new SubscriptionOptions();
        options.setTokenGetter(new SubscriptionTokenGetter() {
            @Override
            public void getSubscriptionToken(SubscriptionTokenEvent event, TokenCallback callback) {
                var all = new HashMap<String, Object>(Map.of("sub", "ann", "channel", event.getChannel()));
                all.putAll(claims.apply(event.getChannel()));
                callback.Done(null, Support.token(all));
            }
        });
        return options;
    }

    /** Waits until the counter is there. */
    private static void reaches(AtomicInteger counter, int least) throws InterruptedException {
        var end = System.nanoTime() + TimeUnit.SECONDS.toNanos(Support.PATIENCE_S);
        while (counter.get() < least) {
            assertTrue(System.nanoTime() < end, () -> "waited for " + least + ", got " + counter);
            Thread.sleep(20);
        }
    }

    @Test
    void connects() throws Exception {
        var client = client(Support.NODE_A, SdkClient.withToken(Support.tokenOf("ann")));
        assertFalse(client.connect().getClient().isEmpty());
        client.sdk.disconnect();
        Support.await("the end", client.disconnected);
        client.connect();
    }

    @Test
    void refusedTokenIsFinal() throws Exception {
        var good = Support.tokenOf("mallory");
        var client = client(Support.NODE_A, SdkClient.withToken(good.substring(0, good.length() - 4) + "AAAA"));
        client.sdk.connect();
        assertEquals(3500, Support.await("the end", client.disconnected).getCode());
        assertEquals(ClientState.DISCONNECTED, client.sdk.getState());
    }

    @Test
    void expiredTokenAsksForAnother() throws Exception {
        var asked = new AtomicInteger();
        var options = asking(asked, () -> Support.tokenOf("ann"));
        options.setToken(Support.token(Map.of("sub", "ann", "exp", Support.now() - 60)));
        client(Support.NODE_A, options).connect();
        assertEquals(1, asked.get());
    }

    @Test
    void connectionIsRefreshed() throws Exception {
        var asked = new AtomicInteger();
        var options = asking(asked, () -> Support.token(Map.of("sub", "ann", "exp", Support.now() + 3)));
        var client = client(Support.NODE_A, options);
        client.connect();
        reaches(asked, 3);
        client.enter(Support.unused("interop-"));
        assertEquals(1, client.connecting.size());
    }

    @Test
    void heardOnTheOtherNode() throws Exception {
        var room = Support.unused("interop-");
        var speaker = online(Support.NODE_A, "ann");
        var mine = speaker.enter(room);
        var theirs = online(Support.NODE_B, "ben").enter(room);
        for (int n = 0; n < 3; n++) speaker.say(room, n);
        for (int n = 0; n < 3; n++) {
            mine.hears(n);
            var info = theirs.hears(n).getInfo();
            assertEquals("ann", info.getUser());
            assertEquals("{\"name\":\"ann\"}", Support.text(info.getConnInfo()));
        }
    }

    @Test
    void bytesThatAreNoJson() throws Exception {
        var room = Support.unused("interop-");
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        var seat = online(Support.NODE_B, "ben").enter(room);
        var data = new byte[] {0, (byte) 0xff, 10, 13, 127};
        speaker.publish(room, data);
        assertArrayEquals(data, Support.await("the publication", seat.heard).getData());
    }

    @Test
    void silenceAfterUnsubscribe() throws Exception {
        var room = Support.unused("interop-");
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        var leaver = online(Support.NODE_B, "ben");
        var left = leaver.enter(room);
        var stayed = online(Support.NODE_B, "cid").enter(room);
        speaker.say(room, 1);
        left.hears(1);
        left.subscription.unsubscribe();
        Support.await("the end of the subscription", left.unsubscribed);
        SdkClient.<PublishResult>refused(103, callback -> leaver.sdk.publish(room, SdkClient.numbered(0), callback));
        speaker.say(room, 2);
        stayed.hears(1);
        stayed.hears(2);
        // An answer behind the delivery: what was to come on this connection has come.
        SdkClient.<PublishResult>refused(103, callback -> leaver.sdk.publish(room, SdkClient.numbered(0), callback));
        assertTrue(left.heard.isEmpty());
    }

    @Test
    void permissions() throws Exception {
        var client = online(Support.NODE_A, "ann");
        var closed = client.ask("closed:room", new SubscriptionOptions());
        assertEquals(103, Support.await("the refusal", closed.unsubscribed).getCode());
        var undeclared = client.ask("undeclared:room", new SubscriptionOptions());
        assertEquals(102, Support.await("the refusal", undeclared.unsubscribed).getCode());
        var elsewhere = Support.unused("interop-");
        SdkClient.<PublishResult>refused(103, callback -> client.sdk.publish(elsewhere, SdkClient.numbered(1), callback));
        var plain = client.enter(Support.unused("interop-"));
        SdkClient.<PresenceResult>refused(108, plain.subscription::presence);
        var options = new HistoryOptions.Builder().withLimit(1).build();
        SdkClient.<HistoryResult>refused(108, callback -> plain.subscription.history(options, callback));
    }

    @Test
    void subscriptionToken() throws Exception {
        var room = Support.unused("closed:");
        var client = online(Support.NODE_A, "ann");
        Support.await("the subscription", client.ask(room, granted(any -> Map.of())).subscribed);
        var garbage = new SubscriptionOptions();
        garbage.setToken("garbage");
        var refused = client.ask(Support.unused("closed:"), garbage);
        assertEquals(103, Support.await("the refusal", refused.unsubscribed).getCode());
        // A token of somewhere or somebody else is a fault that ends the connection.
        for (var wrong : List.<Map<String, Object>>of(Map.of("channel", room), Map.of("sub", "ben"))) {
            var another = online(Support.NODE_A, "ann");
            another.ask(Support.unused("closed:"), granted(any -> wrong));
            assertEquals(3500, Support.await("the end", another.disconnected).getCode());
        }
    }

    @Test
    void subscriptionIsRefreshed() throws Exception {
        var asked = new AtomicInteger();
        var seat = online(Support.NODE_A, "ann").ask(Support.unused("closed:"), granted(any -> {
            asked.incrementAndGet();
            return Map.of("exp", Support.now() + 3);
        }));
        reaches(asked, 3);
        assertEquals(1, seat.subscribed.size());
        assertTrue(seat.unsubscribed.isEmpty());
    }

    @Test
    void presenceJoinAndLeave() throws Exception {
        var room = Support.unused("kept:");
        var watch = online(Support.NODE_A, "ann").enter(room);
        assertEquals("ann", Support.await("the first join", watch.joined).getInfo().getUser());
        var seat = online(Support.NODE_B, "ben").enter(room);
        var join = Support.await("the second join", watch.joined).getInfo();
        assertEquals("ben", join.getUser());
        assertEquals("{\"name\":\"ben\"}", Support.text(join.getConnInfo()));

        PresenceResult present = SdkClient.answer(watch.subscription::presence);
        assertEquals(2, present.getClients().size());
        assertEquals("ben", present.getClients().get(join.getClient()).getUser());
        PresenceStatsResult stats = SdkClient.answer(watch.subscription::presenceStats);
        assertEquals(List.of(2, 2), List.of(stats.getNumClients(), stats.getNumUsers()));

        seat.subscription.unsubscribe();
        var leave = Support.await("the leave", watch.left);
        assertEquals(join.getClient(), leave.getInfo().getClient());
    }

    @Test
    void history() throws Exception {
        var room = Support.unused("kept:");
        var client = online(Support.NODE_A, "ann");
        var seat = client.enter(room);
        for (int n = 1; n <= 5; n++) client.say(room, n);
        var top = page(seat, new HistoryOptions.Builder());
        assertEquals(List.of(), offsets(top));
        assertEquals(5, top.getOffset());
        var since = new StreamPosition(3, top.getEpoch());
        assertEquals(List.of(1L, 2L), offsets(page(seat, new HistoryOptions.Builder().withLimit(2))));
        assertEquals(List.of(5L, 4L), offsets(page(seat, new HistoryOptions.Builder().withLimit(2).withReverse(true))));
        assertEquals(List.of(4L, 5L), offsets(page(seat, new HistoryOptions.Builder().withLimit(9).withSince(since))));
        var back = new HistoryOptions.Builder().withLimit(9).withSince(since).withReverse(true);
        assertEquals(List.of(2L, 1L), offsets(page(seat, back)));
        var elsewhere = new HistoryOptions.Builder().withLimit(9).withSince(new StreamPosition(3, "other")).build();
        SdkClient.<HistoryResult>refused(112, callback -> seat.subscription.history(elsewhere, callback));
    }

    private static HistoryResult page(SdkClient.Seat seat, HistoryOptions.Builder options) throws Exception {
        return SdkClient.answer(callback -> seat.subscription.history(options.build(), callback));
    }

    private static List<Long> offsets(HistoryResult page) {
        return page.getPublications().stream()
                .peek(each -> assertEquals("{\"n\":" + each.getOffset() + "}", Support.text(each.getData())))
                .map(each -> each.getOffset())
                .collect(Collectors.toList());
    }

    /** The client comes back at the other node, which has to know as well what it missed. */
    @Test
    void recoveryAfterACut() throws Exception {
        var room = Support.unused("kept:");
        var wire = closing(new Support.Cable(Support.NODE_A));
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        var listener = online(wire.address(), "ben");
        var options = new SubscriptionOptions();
        options.setRecoverable(true);
        var seat = listener.ask(room, options);
        assertTrue(Support.await("the subscription", seat.subscribed).getRecoverable());
        speaker.say(room, 0);
        seat.hears(0);
        Support.await("the first attempt", listener.connecting);
        wire.cut();
        Support.await("the loss of the connection", listener.connecting);
        for (int n = 1; n < 10; n++) speaker.say(room, n);
        wire.mend(Support.NODE_B);
        var event = Support.await("the subscription", seat.subscribed);
        assertTrue(event.wasRecovering());
        assertTrue(event.getRecovered());
        for (int n = 1; n < 10; n++) assertEquals(n + 1, seat.hears(n).getOffset());
        speaker.say(room, 10);
        seat.hears(10);
    }

    /** More was said than the room remembers: the client is told, and goes on from there. */
    @Test
    void tooMuchMissed() throws Exception {
        var room = Support.unused("brief:");
        var wire = closing(new Support.Cable(Support.NODE_A));
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        var listener = online(wire.address(), "ben");
        var seat = listener.enter(room);
        speaker.say(room, 0);
        seat.hears(0);
        Support.await("the first attempt", listener.connecting);
        wire.cut();
        Support.await("the loss of the connection", listener.connecting);
        for (int n = 1; n < 10; n++) speaker.say(room, n);
        wire.mend(Support.NODE_B);
        var event = Support.await("the subscription", seat.subscribed);
        assertTrue(event.wasRecovering());
        assertFalse(event.getRecovered());
        speaker.say(room, 10);
        // What the room still remembers may come before.
        while (!Support.text(Support.await("publication 10", seat.heard).getData()).equals("{\"n\":10}")) {}
    }

    @Test
    void serverSideSubscription() throws Exception {
        var room = Support.unused("kept:");
        var token = Support.token(Map.of("sub", "ben", "channels", List.of(room)));
        var client = client(Support.NODE_B, SdkClient.withToken(token));
        client.connect();
        assertEquals(room, Support.await("the subscription", client.entered).getChannel());
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        speaker.say(room, 1);
        var event = Support.await("the publication", client.heard);
        assertEquals(room, event.getChannel());
        assertEquals("{\"n\":1}", Support.text(event.getData()));
    }

    @Test
    void pingsAreAnswered() throws Exception {
        var wire = closing(new Support.Cable(Support.NODE_A));
        var client = online(wire.address(), "ann");
        // Nothing else is sent: what goes up are the answers. The third was sent long after a first one was due.
        reaches(wire.up, wire.up.get() + 3);
        assertEquals(1, client.connecting.size());
        client.enter(Support.unused("interop-"));
    }
}
