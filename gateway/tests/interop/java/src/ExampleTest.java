import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.regex.Pattern;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The examples of docs/CLIENTS.md, run as they stand there; only the address is put in. */
class ExampleTest {
    @ParameterizedTest
    @ValueSource(strings = {"centrifuge-java", "spring-websocket"})
    void example(String name, @TempDir Path folder) throws Exception {
        var page = Files.readString(Path.of("../../../../docs/CLIENTS.md"));
        var found = Pattern.compile("^<!-- example: " + name + " -->\\s*```java\n(.*?)^```$", Pattern.DOTALL | Pattern.MULTILINE)
                .matcher(page);
        assertTrue(found.find(), "docs/CLIENTS.md has no such example");
        var file = folder.resolve("Chat.java");
        Files.writeString(file, found.group(1).replace("127.0.0.1:8000", Support.NODE_A));

        try (var listener = new SdkClient(Support.NODE_B, SdkClient.withToken(Support.tokenOf("ben")))) {
            listener.connect();
            var lobby = listener.enter("lobby");
            var builder = new ProcessBuilder(
                    ProcessHandle.current().info().command().orElse("java"),
                    "-cp",
                    System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                    file.toString());
            builder.environment().put("TOKEN", Support.tokenOf("ann"));
            var example = builder.redirectErrorStream(true).start();
            var lines = new LinkedBlockingQueue<String>();
            Support.inBackground(() -> {
                try (var output = example.inputReader()) {
                    for (var line = output.readLine(); line != null; line = output.readLine()) lines.add(line);
                }
            });
            try {
                // Examples of other suites may be in the same room.
                var hello = "{\"text\":\"hello from " + name + "\"}";
                while (!Support.text(Support.await(hello + " from " + lines, lobby.heard).getData()).equals(hello)) {}
                var welcome = "{\"text\":\"welcome, " + name + "\"}";
                listener.publish("lobby", Support.bytes(welcome));
                var line = Support.await("the answer", lines);
                while (!line.contains(welcome)) line = Support.await("the answer", lines);
                assertEquals("heard ben " + welcome, line);
            } finally {
                example.destroy();
                example.waitFor();
            }
        }
    }
}
