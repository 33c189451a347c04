import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketHttpHeaders;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.client.standard.StandardWebSocketClient;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/** Spring's WebSocket client, which speaks the protocol in JSON without an SDK, its token in the header. */
class SpringTest {
    private final List<Plain> toClose = new ArrayList<>();

    @AfterEach
    void closeAll() throws Exception {
        for (var each : toClose) each.session.close();
    }

    /** One connection, with what it was told in a queue. */
    private static final class Plain extends TextWebSocketHandler {
        final BlockingQueue<JsonNode> told = new LinkedBlockingQueue<>();
        final BlockingQueue<CloseStatus> closed = new LinkedBlockingQueue<>();
        final BlockingQueue<Boolean> pings = new LinkedBlockingQueue<>();
        WebSocketSession session;
        private final boolean answersPings;

        Plain(boolean answersPings) {
            this.answersPings = answersPings;
        }

        @Override
        protected void handleTextMessage(WebSocketSession session, TextMessage message) throws Exception {
            // Each message is one object, also where several answers go out together.
            var object = Support.JSON.readTree(message.getPayload());
            if (!object.isEmpty()) {
                told.add(object);
                return;
            }
            pings.add(true);
            if (answersPings) say("{}");
        }

        @Override
        public void afterConnectionClosed(WebSocketSession session, CloseStatus status) {
            closed.add(status);
        }

        synchronized void say(String text) throws Exception {
            session.sendMessage(new TextMessage(text));
        }

        /** Waits for what fits, and passes over what does not. */
        JsonNode hears(String what, Predicate<JsonNode> fits) throws InterruptedException {
            while (true) {
                var object = Support.await(what, told);
                if (fits.test(object)) return object;
            }
        }

        JsonNode answer(int id) throws InterruptedException {
            return hears("answer " + id, object -> object.path("id").asInt() == id);
        }

        JsonNode publication() throws InterruptedException {
            return hears("a publication", object -> object.at("/push/pub").isObject()).at("/push/pub");
        }
    }

    private Plain open(String address, String path, String token, boolean answersPings) throws Exception {
        var plain = new Plain(answersPings);
        var headers = new WebSocketHttpHeaders();
        headers.setBearerAuth(token);
        var uri = URI.create("ws://" + address + path);
        plain.session =
                new StandardWebSocketClient().execute(plain, headers, uri).get(Support.PATIENCE_S, TimeUnit.SECONDS);
        toClose.add(plain);
        return plain;
    }

    private Plain online(String address, String path, String user) throws Exception {
        var plain = open(address, path, Support.tokenOf(user), true);
        plain.say("{\"id\":1,\"connect\":{}}");
        assertTrue(plain.answer(1).at("/connect/client").isTextual());
        return plain;
    }

    private static String subscribe(int id, String room) {
        return "{\"id\":" + id + ",\"subscribe\":{\"channel\":\"" + room + "\"}}";
    }

    private static String publish(int id, String room, String data) {
        return "{\"id\":" + id + ",\"publish\":{\"channel\":\"" + room + "\",\"data\":" + data + "}}";
    }

    private void heardOnTheOtherNode(String path) throws Exception {
        var room = Support.unused("interop-");
        var speaker = online(Support.NODE_A, path, "ann");
        var listener = online(Support.NODE_B, path, "ben");
        for (var each : List.of(speaker, listener)) {
            each.say(subscribe(2, room));
            assertTrue(each.answer(2).has("subscribe"));
        }
        speaker.say(publish(3, room, "{\"text\":\"ça marche ✓\"}"));
        var heard = listener.publication();
        assertEquals("ça marche ✓", heard.at("/data/text").asText());
        assertEquals("ann", heard.at("/info/user").asText());
        assertTrue(speaker.answer(3).has("publish"));
    }

    @Test
    void heardOnTheOtherNodeWithPingsOfTheProtocol() throws Exception {
        heardOnTheOtherNode("/connection/websocket");
    }

    @Test
    void heardOnTheOtherNodeWithPingsOfWebSocket() throws Exception {
        heardOnTheOtherNode("/ws");
    }

    @Test
    void severalCommandsInOneMessage() throws Exception {
        var room = Support.unused("interop-");
        var plain = open(Support.NODE_A, "/connection/websocket", Support.tokenOf("ann"), true);
        plain.say(String.join("\n", "{\"id\":1,\"connect\":{}}", subscribe(2, room), publish(3, room, "1")));
        assertTrue(plain.answer(1).has("connect"));
        assertTrue(plain.answer(2).has("subscribe"));
        assertEquals(1, plain.publication().path("data").asInt());
    }

    @Test
    void answeredPingsKeepItOpen() throws Exception {
        var plain = online(Support.NODE_A, "/connection/websocket", "ann");
        for (int n = 0; n < 3; n++) Support.await("a ping", plain.pings);
        plain.say(subscribe(2, Support.unused("interop-")));
        assertTrue(plain.answer(2).has("subscribe"));
    }

    @Test
    void pingsOfWebSocketAreAnsweredByTheLibrary() throws Exception {
        var clock = online(Support.NODE_A, "/connection/websocket", "ann");
        var plain = online(Support.NODE_A, "/ws", "ben");
        // As long as it takes to ping another connection three times: longer than any answer may take.
        for (int n = 0; n < 3; n++) Support.await("a ping", clock.pings);
        plain.say(subscribe(2, Support.unused("interop-")));
        assertTrue(plain.answer(2).has("subscribe"));
        assertTrue(plain.pings.isEmpty());
    }

    @Test
    void anUnansweredPingEndsIt() throws Exception {
        var plain = open(Support.NODE_A, "/connection/websocket", Support.tokenOf("ann"), false);
        plain.say("{\"id\":1,\"connect\":{}}");
        plain.answer(1);
        assertEquals(3012, Support.await("the end", plain.closed).getCode());
    }

    @Test
    void recoversByHand() throws Exception {
        var room = Support.unused("kept:");
        var plain = online(Support.NODE_A, "/connection/websocket", "ann");
        plain.say(subscribe(2, room));
        var epoch = plain.answer(2).at("/subscribe/epoch").asText();
        for (int n = 1; n <= 3; n++) {
            plain.say(publish(10 + n, room, "{\"n\":" + n + "}"));
            assertTrue(plain.answer(10 + n).has("publish"));
        }
        var back = online(Support.NODE_B, "/connection/websocket", "ann");
        back.say("{\"id\":2,\"subscribe\":{\"channel\":\"" + room + "\",\"recover\":true,\"offset\":1,\"epoch\":\"" + epoch
                + "\"}}");
        var reply = back.answer(2).path("subscribe");
        assertTrue(reply.path("recovered").asBoolean());
        assertEquals("[2, 3]", reply.path("publications").findValuesAsText("n").toString());
    }

    @Test
    void presenceAndHistory() throws Exception {
        var room = Support.unused("kept:");
        var watch = online(Support.NODE_A, "/ws", "ann");
        watch.say(subscribe(2, room));
        watch.answer(2);
        var other = online(Support.NODE_B, "/ws", "ben");
        other.say(subscribe(2, room));
        other.answer(2);
        watch.hears("the join", object -> object.at("/push/join/info/user").asText().equals("ben"));
        watch.say("{\"id\":3,\"presence\":{\"channel\":\"" + room + "\"}}");
        var users = watch.answer(3).at("/presence/presence").findValuesAsText("user");
        assertEquals(Set.of("ann", "ben"), Set.copyOf(users));
        other.say(publish(3, room, "{\"n\":1}"));
        other.answer(3);
        watch.say("{\"id\":4,\"history\":{\"channel\":\"" + room + "\",\"limit\":9}}");
        assertEquals("[1]", watch.answer(4).at("/history/publications").findValuesAsText("n").toString());
        other.say("{\"id\":4,\"unsubscribe\":{\"channel\":\"" + room + "\"}}");
        watch.hears("the leave", object -> object.at("/push/leave/info/user").asText().equals("ben"));
    }

    /** The backend commands one node, the client is at the other. */
    @Test
    void commandedByTheBackend() throws Exception {
        String room = Support.unused("interop-"), closed = Support.unused("closed:");
        var plain = open(Support.NODE_B, "/ws", Support.tokenOf("ann"), false);
        plain.say("{\"id\":1,\"connect\":{}}");
        var id = plain.answer(1).at("/connect/client").asText();
        plain.say(subscribe(2, room));
        plain.answer(2);
        plain.say("{\"id\":3,\"rpc\":{\"method\":\"echo\",\"data\":[1,2]}}");
        assertEquals("{\"user\":\"ann\",\"data\":[1,2]}", plain.answer(3).at("/rpc/data").toString());
        Support.call("publish", Map.of("channel", room, "data", Map.of("n", 1)));
        assertEquals(1, plain.publication().at("/data/n").asInt());
        Support.call("unsubscribe", Map.of("client", id, "channel", room));
        var end = plain.hears("the end of the subscription", object -> object.at("/push/unsubscribe").isObject());
        assertEquals(2000, end.at("/push/unsubscribe/code").asInt());
        Support.call("subscribe", Map.of("client", id, "channel", closed));
        plain.hears("the subscription", object -> object.at("/push/subscribe").isObject());
        Support.call("disconnect", Map.of("client", id, "disconnect", Map.of("code", 4500, "reason", "banned")));
        assertEquals(new CloseStatus(4500, "banned"), Support.await("the end", plain.closed));
    }

    @Test
    void tokensAreRenewed() throws Exception {
        var room = Support.unused("closed:");
        var soon = Map.<String, Object>of("sub", "ann", "exp", Support.now() + 60);
        var plain = open(Support.NODE_B, "/ws", Support.token(soon), false);
        plain.say("{\"id\":1,\"connect\":{}}");
        assertTrue(plain.answer(1).at("/connect/ttl").asInt() <= 60);
        plain.say("{\"id\":2,\"refresh\":{\"token\":\"" + Support.tokenOf("ann") + "\"}}");
        assertTrue(plain.answer(2).at("/refresh/ttl").asInt() > 60);
        var seat = Map.<String, Object>of("sub", "ann", "channel", room);
        plain.say("{\"id\":3,\"subscribe\":{\"channel\":\"" + room + "\",\"token\":\"" + Support.token(seat) + "\"}}");
        assertTrue(plain.answer(3).at("/subscribe/ttl").asInt() > 60);
        plain.say("{\"id\":4,\"sub_refresh\":{\"channel\":\"" + room + "\",\"token\":\"" + Support.token(seat) + "\"}}");
        assertTrue(plain.answer(4).at("/sub_refresh/ttl").asInt() > 60);
    }

    @Test
    void errorsHaveCodes() throws Exception {
        var plain = online(Support.NODE_A, "/connection/websocket", "ann");
        plain.say(subscribe(2, "closed:room"));
        assertEquals(103, plain.answer(2).at("/error/code").asInt());
        plain.say(subscribe(3, "undeclared:room"));
        assertEquals(102, plain.answer(3).at("/error/code").asInt());
        plain.say("no JSON");
        assertEquals(3501, Support.await("the end", plain.closed).getCode());
    }

    @Test
    void aBadBearerTokenIsRefusedBeforeTheUpgrade() {
        var token = Support.tokenOf("mallory");
        var failure = assertThrows(
                ExecutionException.class,
                () -> open(Support.NODE_A, "/ws", token.substring(0, token.length() - 4) + "AAAA", true));
        assertTrue(failure.getMessage().contains("401"), failure.getMessage());
    }
}
