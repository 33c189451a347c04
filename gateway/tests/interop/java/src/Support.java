import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.junit.jupiter.api.Assertions;

/** What the tests need beside the clients: tokens, waiting, and a cable that can be cut. */
final class Support {
    static final String NODE_A = System.getenv("INTEROP_A");
    private static final boolean ALONE = System.getenv("INTEROP_REDIS_URL").isEmpty();
    /** The other node, where there is one. */
    static final String NODE_B = ALONE ? NODE_A : System.getenv("INTEROP_B");
    static final ObjectMapper JSON = new ObjectMapper();
    static final int PATIENCE_S = 20;
    private static final String SECRET = System.getenv("INTEROP_SECRET");

    private Support() {}

    /** Signs claims; unless they say otherwise the token is good for an hour. */
    static String token(Map<String, Object> claims) {
        var all = new HashMap<String, Object>(Map.of("exp", now() + 3600));
        all.putAll(claims);
        try {
            var encoder = Base64.getUrlEncoder().withoutPadding();
            var head = encoder.encodeToString(bytes("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"));
            var signed = head + "." + encoder.encodeToString(JSON.writeValueAsBytes(all));
            var mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(bytes(SECRET), "HmacSHA256"));
            return signed + "." + encoder.encodeToString(mac.doFinal(bytes(signed)));
        } catch (java.security.GeneralSecurityException | JsonProcessingException e) {
            throw new AssertionError(e);
        }
    }

    static String tokenOf(String user) {
        return token(Map.of("sub", user, "info", Map.of("name", user)));
    }

    /** Calls a method of the server API at node `a`, and returns its result. */
    static JsonNode call(String method, Map<String, Object> request) throws Exception {
        var uri = URI.create("http://" + System.getenv("INTEROP_A_INTERNAL") + "/api/" + method);
        var post = HttpRequest.newBuilder(uri)
                .header("X-API-Key", System.getenv("INTEROP_API_KEY"))
                .POST(HttpRequest.BodyPublishers.ofByteArray(JSON.writeValueAsBytes(request)))
                .timeout(Duration.ofSeconds(PATIENCE_S))
                .build();
        var answer = HttpClient.newHttpClient().send(post, HttpResponse.BodyHandlers.ofString());
        var object = JSON.readTree(answer.body());
        Assertions.assertTrue(object.has("result"), answer.body());
        return object.get("result");
    }

    static long now() {
        return Instant.now().getEpochSecond();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** A name that no other test uses. */
    static String unused(String prefix) {
        return prefix + UUID.randomUUID();
    }

    /** Takes the next of what happened, past or to come. */
    static <T> T await(String what, BlockingQueue<T> happened) throws InterruptedException {
        var event = happened.poll(PATIENCE_S, TimeUnit.SECONDS);
        Assertions.assertNotNull(event, "waited for " + what);
        return event;
    }

    /** Passes bytes between clients and a node until it is cut; then nobody gets through until it is mended. */
    static final class Cable implements AutoCloseable {
        /** How often something went to the node. */
        final AtomicInteger up = new AtomicInteger();

        private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        private final List<Socket> open = new ArrayList<>();
        private String target;

        Cable(String target) throws IOException {
            this.target = target;
            inBackground(() -> {
                while (true) join(listener.accept());
            });
        }

        String address() {
            return "127.0.0.1:" + listener.getLocalPort();
        }

        private synchronized void join(Socket near) throws IOException {
            if (target == null) {
                near.close();
                return;
            }
            var place = target.split(":");
            Socket far;
            try {
                far = new Socket(place[0], Integer.parseInt(place[1]));
            } catch (IOException nobodyListens) {
                near.close();
                return;
            }
            open.addAll(List.of(near, far));
            inBackground(() -> pass(near, far, up));
            inBackground(() -> pass(far, near, new AtomicInteger()));
        }

        private static void pass(Socket from, Socket to, AtomicInteger count) throws IOException {
            try (from; to) {
                InputStream in = from.getInputStream();
                OutputStream out = to.getOutputStream();
                var buffer = new byte[8192];
                for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
                    out.write(buffer, 0, n);
                    count.incrementAndGet();
                }
            }
        }

        synchronized void cut() throws IOException {
            target = null;
            for (var socket : open) socket.close();
            open.clear();
        }

        synchronized void mend(String target) {
            this.target = target;
        }

        @Override
        public void close() throws IOException {
            listener.close();
            cut();
        }
    }

    interface Work {
        void run() throws IOException;
    }

    /** Runs until what it reads from is closed. */
    static void inBackground(Work work) {
        var thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException closed) {
                // That is how it ends.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
