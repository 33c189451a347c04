import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.ClientState;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.TokenCallback;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What a backend does to clients of the SDK: it commands one node, and they are at the other. */
class BackendTest extends Clients {
    @Test
    void speaks() throws Exception {
        String plain = Support.unused("interop-"), kept = Support.unused("kept:");
        var client = online(Support.NODE_B, "ann");
        var seats = List.of(client.enter(plain), client.enter(kept));
        Support.call("publish", Map.of("channel", plain, "data", Map.of("n", 1), "tags", Map.of("kind", "news")));
        assertEquals(Map.of("kind", "news"), seats.get(0).hears(1).getTags());
        Support.call("broadcast", Map.of("channels", List.of(plain, kept), "data", Map.of("n", 2)));
        for (var seat : seats) seat.hears(2);
    }

    @Test
    void takesOutOfARoom() throws Exception {
        var room = Support.unused("interop-");
        var client = client(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ann")));
        var id = client.connect().getClient();
        var seat = client.enter(room);
        Support.call("unsubscribe", Map.of("client", id, "channel", room));
        assertEquals(2000, Support.await("the end of the subscription", seat.unsubscribed).getCode());
        assertEquals(ClientState.CONNECTED, client.sdk.getState());
        // It may come back when it wants to.
        seat.subscription.subscribe();
        Support.await("the subscription", seat.subscribed);
        Support.call("publish", Map.of("channel", room, "data", Map.of("n", 1)));
        seat.hears(1);
    }

    @Test
    void putsIntoARoomAndOut() throws Exception {
        var room = Support.unused("closed:");
        var client = client(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ann")));
        var id = client.connect().getClient();
        Support.call("subscribe", Map.of("client", id, "channel", room, "data", Map.of("welcome", true)));
        var entered = Support.await("the subscription", client.entered);
        assertEquals(room, entered.getChannel());
        assertEquals("{\"welcome\":true}", Support.text(entered.getData()));
        Support.call("publish", Map.of("channel", room, "data", Map.of("n", 1)));
        assertEquals("{\"n\":1}", Support.text(Support.await("the publication", client.heard).getData()));
        Support.call("unsubscribe", Map.of("client", id, "channel", room));
        assertEquals(room, Support.await("the end of the subscription", client.left).getChannel());
    }

    @Test
    void disconnectsForGood() throws Exception {
        var client = client(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ann")));
        var id = client.connect().getClient();
        Support.call("disconnect", Map.of("client", id));
        assertEquals(3503, Support.await("the end", client.disconnected).getCode());

        client.sdk.connect();
        id = Support.await("the connection", client.connected).getClient();
        Support.call("disconnect", Map.of("client", id, "disconnect", Map.of("code", 4500, "reason", "banned")));
        var end = Support.await("the end", client.disconnected);
        assertEquals(4500, end.getCode());
        assertEquals("banned", end.getReason());
    }

    @Test
    void disconnectsForNow() throws Exception {
        var room = Support.unused("interop-");
        var client = client(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ann")));
        var id = client.connect().getClient();
        var seat = client.enter(room);
        Support.await("the first attempt", client.connecting);
        Support.call("disconnect", Map.of("client", id, "disconnect", Map.of("code", 4001, "reason", "move over")));
        assertEquals(4001, Support.await("the loss of the connection", client.connecting).getCode());
        Support.await("the connection", client.connected);
        Support.await("the subscription", seat.subscribed);
        assertTrue(client.disconnected.isEmpty());
    }

    @Test
    void declaresAConnectionExpired() throws Exception {
        var options = new Options();
        options.setTokenGetter(new ConnectionTokenGetter() {
            @Override
            public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                callback.Done(null, Support.tokenOf("ann"));
            }
        });
        var client = client(Support.NODE_B, options);
        var id = client.connect().getClient();
        Support.await("the first attempt", client.connecting);
        Support.call("refresh", Map.of("client", id, "expired", true));
        assertEquals(3005, Support.await("the loss of the connection", client.connecting).getCode());
        Support.await("the connection", client.connected);
    }

    @Test
    void seesWhoIsThereAndWhatWasSaid() throws Exception {
        var room = Support.unused("kept:");
        var client = client(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ann")));
        var id = client.connect().getClient();
        client.enter(room);
        client.say(room, 1);
        var present = Support.call("presence", Map.of("channel", room)).path("presence").path(id);
        assertEquals("ann", present.path("user").asText());
        var history = Support.call("history", Map.of("channel", room, "limit", 10)).path("publications");
        assertEquals("[1]", history.findValuesAsText("n").toString());
    }

    @Test
    void answersRpc() throws Exception {
        var client = online(Support.NODE_B, "ann");
        var result = SdkClient.<RPCResult>answer(
                callback -> client.sdk.rpc("echo", Support.bytes("{\"ça\":[1,\"✓\"]}"), callback));
        assertEquals("{\"user\":\"ann\",\"data\":{\"ça\":[1,\"✓\"]}}", Support.text(result.getData()));
        SdkClient.<RPCResult>refused(1001, callback -> client.sdk.rpc("refuse", Support.bytes("{}"), callback));
        SdkClient.<RPCResult>refused(404, callback -> client.sdk.rpc("unheard of", Support.bytes("{}"), callback));
        client.sdk.rpc("throw out", Support.bytes("{}"), (error, none) -> {});
        assertEquals(4501, Support.await("the end", client.disconnected).getCode());
    }
}
