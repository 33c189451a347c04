import io.github.centrifugal.centrifuge.Options;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;

/** Clients that end with the test that made them. */
abstract class Clients {
    private final List<AutoCloseable> toClose = new ArrayList<>();

    @AfterEach
    void closeAll() throws Exception {
        for (var each : toClose) each.close();
    }

    final <T extends AutoCloseable> T closing(T each) {
        toClose.add(each);
        return each;
    }

    final SdkClient client(String address, Options options) {
        return closing(new SdkClient(address, options));
    }

    final SdkClient online(String address, String user) throws InterruptedException {
        var client = client(address, SdkClient.withToken(Support.tokenOf(user)));
        client.connect();
        return client;
    }
}
