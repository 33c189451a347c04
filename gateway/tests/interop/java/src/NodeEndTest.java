import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Isolated;

/** A node ends under its clients, one of which goes elsewhere while another waits: both get what they missed. */
@Isolated("no other test may lose its node")
class NodeEndTest extends Clients {
    @Test
    void killed() throws Exception {
        var pid = Long.parseLong(Files.readString(Path.of(System.getenv("INTEROP_STATE"), "b.pid")).strip());
        var node = ProcessHandle.of(pid).orElseThrow();
        ended(() -> {
            assertTrue(node.destroyForcibly());
            node.onExit().get(Support.PATIENCE_S, TimeUnit.SECONDS);
        });
    }

    @Test
    void stopped() throws Exception {
        ended(() -> cluster("stop"));
    }

    private void ended(End end) throws Exception {
        var room = Support.unused("kept:");
        var wire = closing(new Support.Cable(Support.NODE_B));
        var speaker = online(Support.NODE_A, "ann");
        speaker.enter(room);
        SdkClient moves = online(wire.address(), "ben"), waits = online(Support.NODE_B, "cid");
        SdkClient.Seat moved = moves.ask(room, new SubscriptionOptions()), waited = waits.enter(room);
        Support.await("the subscription", moved.subscribed);
        speaker.say(room, 0);
        for (var seat : new SdkClient.Seat[] {moved, waited}) seat.hears(0);
        for (var client : new SdkClient[] {moves, waits}) Support.await("the first attempt", client.connecting);

        end.run();
        try {
            for (var client : new SdkClient[] {moves, waits}) {
                Support.await("the loss of the connection", client.connecting);
            }
            for (int n = 1; n < 10; n++) speaker.say(room, n);
            wire.mend(Support.NODE_A);
            recovered(moved);
        } finally {
            cluster("start");
        }
        recovered(waited);
        waits.say(room, 10);
        for (var seat : new SdkClient.Seat[] {moved, waited}) seat.hears(10);
    }

    private static void recovered(SdkClient.Seat seat) throws InterruptedException {
        var event = Support.await("the subscription", seat.subscribed);
        assertTrue(event.wasRecovering());
        assertTrue(event.getRecovered());
        for (int n = 1; n < 10; n++) assertEquals(n + 1, seat.hears(n).getOffset());
    }

    /** Does something to node `b`. */
    private static void cluster(String verb) throws Exception {
        var done = new ProcessBuilder("../cluster.sh", verb, "b").inheritIO().start();
        assertTrue(done.waitFor(2 * Support.PATIENCE_S, TimeUnit.SECONDS));
        assertEquals(0, done.exitValue());
    }

    private interface End {
        void run() throws Exception;
    }
}
