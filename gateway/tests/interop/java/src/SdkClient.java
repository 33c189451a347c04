import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.ResultCallback;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.ServerSubscribedEvent;
import io.github.centrifugal.centrifuge.ServerUnsubscribedEvent;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.Assertions;

/** A client of the SDK, with its events in queues. */
final class SdkClient implements AutoCloseable {
    final Client sdk;
    final BlockingQueue<ConnectedEvent> connected = new LinkedBlockingQueue<>();
    final BlockingQueue<ConnectingEvent> connecting = new LinkedBlockingQueue<>();
    final BlockingQueue<DisconnectedEvent> disconnected = new LinkedBlockingQueue<>();
    final BlockingQueue<ServerSubscribedEvent> entered = new LinkedBlockingQueue<>();
    final BlockingQueue<ServerPublicationEvent> heard = new LinkedBlockingQueue<>();
    final BlockingQueue<ServerUnsubscribedEvent> left = new LinkedBlockingQueue<>();

    SdkClient(String address, Options options) {
        options.setTimeout(1000 * Support.PATIENCE_S);
        options.setMaxReconnectDelay(300);
        sdk = new Client("ws://" + address + "/connection/websocket", options, new EventListener() {
            @Override
            public void onConnected(Client client, ConnectedEvent event) {
                connected.add(event);
            }

            @Override
            public void onConnecting(Client client, ConnectingEvent event) {
                connecting.add(event);
            }

            @Override
            public void onDisconnected(Client client, DisconnectedEvent event) {
                disconnected.add(event);
            }

            @Override
            public void onSubscribed(Client client, ServerSubscribedEvent event) {
                entered.add(event);
            }

            @Override
            public void onPublication(Client client, ServerPublicationEvent event) {
                heard.add(event);
            }

            @Override
            public void onUnsubscribed(Client client, ServerUnsubscribedEvent event) {
                left.add(event);
            }
        });
    }

    static Options withToken(String token) {
        var options = new Options();
        options.setToken(token);
        return options;
    }

    ConnectedEvent connect() throws InterruptedException {
        sdk.connect();
        return Support.await("the connection", connected);
    }

    /** Begins to subscribe. */
    Seat ask(String room, SubscriptionOptions options) throws Exception {
        var seat = new Seat();
        seat.subscription = sdk.newSubscription(room, options, seat);
        seat.subscription.subscribe();
        return seat;
    }

    /** Returns when the server has taken the subscription. */
    Seat enter(String room) throws Exception {
        var seat = ask(room, new SubscriptionOptions());
        Support.await("the subscription", seat.subscribed);
        return seat;
    }

    /** Publishes {"n":…}. */
    void say(String room, int n) throws Exception {
        publish(room, numbered(n));
    }

    PublishResult publish(String room, byte[] data) throws Exception {
        return SdkClient.<PublishResult>answer(callback -> sdk.publish(room, data, callback));
    }

    @Override
    public void close() throws InterruptedException {
        sdk.close(1000);
    }

    static byte[] numbered(int n) {
        return Support.bytes("{\"n\":" + n + "}");
    }

    /** What the server answers. */
    static <T> T answer(Consumer<ResultCallback<T>> question) throws Exception {
        var future = new CompletableFuture<T>();
        question.accept((error, result) -> {
            if (error != null) future.completeExceptionally(error);
            else future.complete(result);
        });
        return future.get(Support.PATIENCE_S, TimeUnit.SECONDS);
    }

    static <T> void refused(int code, Consumer<ResultCallback<T>> question) {
        var failure = Assertions.assertThrows(ExecutionException.class, () -> answer(question));
        var error = Assertions.assertInstanceOf(ReplyError.class, failure.getCause());
        Assertions.assertEquals(code, error.getCode());
    }

    /** A subscription, with its events in queues. */
    static final class Seat extends SubscriptionEventListener {
        Subscription subscription;
        final BlockingQueue<SubscribedEvent> subscribed = new LinkedBlockingQueue<>();
        final BlockingQueue<UnsubscribedEvent> unsubscribed = new LinkedBlockingQueue<>();
        final BlockingQueue<PublicationEvent> heard = new LinkedBlockingQueue<>();
        final BlockingQueue<JoinEvent> joined = new LinkedBlockingQueue<>();
        final BlockingQueue<LeaveEvent> left = new LinkedBlockingQueue<>();

        /** Checks that this is what comes next. */
        PublicationEvent hears(int n) throws InterruptedException {
            var event = Support.await("publication " + n, heard);
            Assertions.assertEquals(Support.text(numbered(n)), Support.text(event.getData()));
            return event;
        }

        @Override
        public void onSubscribed(Subscription subscription, SubscribedEvent event) {
            subscribed.add(event);
        }

        @Override
        public void onUnsubscribed(Subscription subscription, UnsubscribedEvent event) {
            unsubscribed.add(event);
        }

        @Override
        public void onPublication(Subscription subscription, PublicationEvent event) {
            heard.add(event);
        }

        @Override
        public void onJoin(Subscription subscription, JoinEvent event) {
            joined.add(event);
        }

        @Override
        public void onLeave(Subscription subscription, LeaveEvent event) {
            left.add(event);
        }
    }
}
