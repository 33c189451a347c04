//! Every setting of a node, declared once: documentation, name, type and default. The type says how it is written: a
//! `Duration` as `25s`, a `usize` is a size in bytes and written `64KB`, a `u32` is a count.
//! Adding a setting is adding its line here and nothing else.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{
    hooks::Hooks,
    origin::OriginPattern,
    rooms::{Namespace, RoomRules},
    secret::{RedisUrl, RedisUrls, Secret},
    section::{About, Place, Visitor, section},
    tokens::Auth,
    transports::Transports,
    value::{LogFormat, LogLevel},
};

section! {
    /// All settings of a node. The path to a field is the name of the setting: `settings.redis.url` is `redis.url`.
    Settings {
        /// Address for clients. `:8000` means every IPv4 address, `[::]:8000` every address. Port 0 takes a free one.
        listen: SocketAddr = "127.0.0.1:8000",
        /// Address for the server API, metrics and health. The same as `listen` makes one listener serve all.
        internal_listen: SocketAddr = "127.0.0.1:9000",
        /// Name of this node: in the reply to `connect`, in the API's `info`, and in the log when it starts. Unset: the
        /// name of the host and a random suffix.
        node_name: String,
        /// Origins of web pages that may connect: `https://example.com`, `https://*.example.com`, or `*` for any. Pages
        /// of the node's own origin and clients that send no origin may always. In development mode: any.
        allowed_origins: Vec<OriginPattern>,
        /// Networks of proxies whose `X-Forwarded-For` or PROXY header gives the client's address.
        trusted_proxies: Vec<IpNet>,
        /// Whether the settings file is read again when it changes, as it is at SIGHUP: keys, origins and the rules of rooms
        /// are taken anew without a restart.
        reload: bool = "false",
        /// Whether `/` serves a page to try the node with. In development mode: true.
        playground: bool = "false",
        /// Who may connect.
        auth: Auth,
        /// The server API.
        api: Api,
        /// What one client, or all clients of one node, may take.
        client: Client,
        /// How much may be asked for in a second.
        limits: Limits,
        /// What the process may take.
        memory: Memory,
        /// The ways to connect.
        transports: Transports,
        /// The WebSocket transport.
        websocket: WebSocket,
        /// HTTP requests, before any upgrade.
        http: Http,
        /// What holds for all rooms.
        channel: Channel,
        /// The rooms of this node.
        hub: Hub,
        /// What ties nodes together.
        redis: Redis,
        /// Rules of rooms without a namespace. In development mode clients may subscribe and publish.
        rooms: RoomRules,
        /// Rules of rooms whose name begins with a namespace and a colon.
        namespaces: Vec<Namespace>,
        /// What a backend is asked over HTTP, and how.
        hooks: Hooks,
        /// When the node reports itself ready.
        ready: Ready,
        /// How the node ends.
        shutdown: Shutdown,
        /// The log.
        log: Log,
        /// Whether the node runs in development mode. Nobody sets it: it follows from there being no key.
        development: Concluded,
    }
}

section! {
    /// The server API.
    Api {
        /// Key that callers of the server API send. Unset: the API is off, save in development mode.
        key: Option<Secret>,
    }
}

section! {
    /// What one client, or all clients of one node, may take.
    Client {
        /// Time between two pings of the server, whole seconds, 49d at most; 0s turns pings off.
        ping_interval: Duration = "25s",
        /// How long the answer to a ping may take, shorter than `client.ping_interval`; then the client is closed (3012).
        pong_timeout: Duration = "8s",
        /// How long a client may take to send its `connect` command; then it is closed (3502).
        stale_close_delay: Duration = "10s",
        /// How long a client may take to refresh a token that has expired, 49d at most; then it is closed (3005).
        expired_close_delay: Duration = "25s",
        /// The same for a token of one room; then the client is out of that room (2501).
        expired_sub_close_delay: Duration = "25s",
        /// Whether every client of a known user is in a room of that user from the start, without asking.
        personal_rooms: bool = "false",
        /// Name of that room; `{user}` stands for the user. The rules are those of its namespace. Others enter it only by a
        /// token, by a list of users in the name, or where the backend lets them.
        personal_room_name: String = "#{user}",
        /// Rooms one client may be in (error 106).
        channel_limit: u32 = "128",
        /// What may wait for one client that reads slowly; beyond that it is closed (3008).
        queue_max_size: usize = "1MB",
        /// Kernel send buffer of one connection (`SO_SNDBUF`), which is part of what a slow client costs.
        send_buffer: usize = "64KB",
        /// Connections to this node, beyond which upgrades are answered 503; 0 for no limit.
        connection_limit: u32 = "0",
        /// New connections to this node in a second, beyond which upgrades are answered 503; 0 for no limit.
        connection_rate_limit: u32 = "0",
        /// Connections of one user to this node (3504); 0 for no limit.
        user_connection_limit: u32 = "0",
        /// Connections of one user to all nodes that share a Redis (3504); 0 for no limit. Anonymous users are not counted.
        user_cluster_connection_limit: u32 = "0",
        /// Commands of one client that may wait for the broker at a time, 1024 at most; what follows is read when one is answered.
        pending_commands: u32 = "128",
        /// No token needed and every command allowed, for trying things out; on loopback addresses only. Not development
        /// mode: the page and the server API stay off unless they are set.
        insecure: bool = "false",
    }
}

section! {
    /// How much may be asked for in a second, in bursts of as much; 0 for no limit. Each node counts for itself.
    Limits {
        /// New connections from one address, or one /64 of IPv6; more are answered 429.
        connects_per_address: u32 = "0",
        /// Connections of one user; more are refused for the moment (error 111).
        connects_per_user: u32 = "0",
        /// Commands of one client; more are refused for the moment (error 111), and requests to `/emulation` that bring them are
        /// answered 429.
        commands_per_client: u32 = "0",
        /// The same for `publish` of one user over all of its connections. Whoever is anonymous is counted by connection.
        publishes_per_user: u32 = "0",
        /// The same for `subscribe`.
        subscribes_per_user: u32 = "0",
        /// The same for `history`.
        histories_per_user: u32 = "0",
        /// The same for `presence` and `presence_stats`.
        presences_per_user: u32 = "0",
        /// The same for `rpc`.
        rpcs_per_user: u32 = "0",
    }
}

section! {
    /// What the process may take.
    Memory {
        /// Memory of the process; 0 for what its control group has, or the machine. From 90 % of it on new connections are
        /// answered 503 and the node is not ready, from 95 % on an eighth of `client.queue_max_size` may wait.
        limit: usize = "0",
    }
}

section! {
    /// The WebSocket transport.
    WebSocket {
        /// Size of one message of a client, beyond which it is closed (1009).
        message_size_limit: usize = "64KB",
        /// Whether messages may be compressed (permessage-deflate) with clients that offer it: less on the wire for more CPU,
        /// once for each publication and kind of client.
        compression: bool = "false",
        /// Size of a publication's message from which it is compressed.
        compression_min_size: usize = "256",
        /// How long the last words to a client may take to be written when its connection ends, over any transport.
        write_timeout: Duration = "1s",
    }
}

section! {
    /// HTTP requests, before any upgrade.
    Http {
        /// How long a client may take to send the head of its request, and again for the body.
        header_timeout: Duration = "5s",
    }
}

section! {
    /// What holds for all rooms.
    Channel {
        /// Length of a room's name in bytes (error 107).
        max_length: usize = "255",
        /// Publications that one `history` command gives at most; more are not an error, they are not given.
        history_max_publication_limit: u32 = "300",
        /// Publications that a client is given at most when it comes back; who missed more is told that it cannot recover.
        recovery_max_publication_limit: u32 = "300",
        /// How long the offset and epoch of a room are remembered after their last use, where its rules say nothing else;
        /// 0s for ever.
        history_meta_ttl: Duration = "720h",
        /// How long the answer to a publication with an idempotency key is remembered.
        idempotency_ttl: Duration = "5m",
        /// What the histories of all rooms may take in the memory of this node, where there is no Redis; beyond that the
        /// rooms that were silent longest are forgotten.
        history_memory: usize = "256MB",
        /// How often a room with positions is compared with its history, at most this often; 0s never.
        position_check_delay: Duration = "40s",
        /// How often the presence of this node's clients is renewed, shorter than `channel.presence_ttl`.
        presence_update_interval: Duration = "27s",
        /// How long a client stays present after its node has ended without saying so.
        presence_ttl: Duration = "60s",
    }
}

section! {
    /// The rooms of this node.
    Hub {
        /// What may wait to be delivered in one room; beyond that publishers and the reader of Redis wait.
        inbox_size: usize = "1MB",
    }
}

section! {
    /// What ties nodes together.
    Redis {
        /// The Redis that nodes share: `redis://` or `rediss://` with user, password, host, port and database,
        /// `redis+unix://` with the path of a socket, `redis+sentinel://` with sentinels and the name of a service, or
        /// `redis+cluster://` with nodes of a cluster. Unset: rooms live in the memory of this node alone.
        url: Option<RedisUrl>,
        /// Several Redis instead of `redis.url`, each independent of the others, over which rooms are spread. The order
        /// counts, and is the same on every node: append, and never insert. No cluster may be among them.
        urls: RedisUrls,
        /// How many groups of rooms a Redis Cluster keeps together, so that they are subscribed and published in one
        /// command; 0 spreads each room for itself. The same on every node.
        cluster_partitions: u32 = "0",
        /// What the names of this system's keys and channels in Redis begin with. Nodes of one system share it.
        prefix: String = "roomcast",
        /// How long connecting to Redis may take.
        connect_timeout: Duration = "1s",
        /// How long an answer of Redis may take; then the client is told error 100.
        io_timeout: Duration = "4s",
        /// Publications that may wait to be written to Redis, for instance while it is not connected.
        publish_queue: u32 = "65536",
        /// How long after a write to Redis the next one follows where publications come on and on, or until as many wait as
        /// usually come in that time: they go together, which spares about a third of the processor time of many small
        /// rooms. They take up to this longer, and a millisecond more where fewer come than usually; what comes after a while
        /// does not, and who waits for each answer before the next call hardly does. 0s for never, 100ms at most.
        gathering_pause: Duration = "700us",
    }
}

section! {
    /// When the node reports itself ready.
    Ready {
        /// How long Redis may go unheard before the node reports itself not ready; 0s for ever.
        broker_grace: Duration = "30s",
    }
}

section! {
    /// How the node ends. First it reports itself not ready, then it stops accepting, then it closes its connections.
    Shutdown {
        /// How long the node goes on accepting, so that balancers can turn away from it.
        delay: Duration = "5s",
        /// Time over which the closing of connections is spread, after the delay.
        drain: Duration = "30s",
        /// When the node ends whatever is left; at least a second more than delay and drain together.
        timeout: Duration = "45s",
    }
}

section! {
    /// The log.
    Log {
        /// What is logged: error, warn, info, debug or trace.
        level: LogLevel = "info",
        /// How lines are written: pretty, json, or auto, which is pretty on a terminal and json elsewhere.
        format: LogFormat = "auto",
    }
}

/// Something that follows from the settings and cannot be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concluded(pub bool);

impl Place for Concluded {
    fn visit(&mut self, _: &str, _: &About, _: Visitor<'_>) {}
}

impl Redis {
    /// Every Redis there is, in order; none where rooms live in memory.
    pub fn every_url(&self) -> impl Iterator<Item = &RedisUrl> {
        self.url.iter().chain(&self.urls.0)
    }
}

impl Settings {
    /// Whether one listener serves clients and the internal pages. Two ports chosen freely (0) are two listeners.
    pub fn one_listener(&self) -> bool {
        self.listen == self.internal_listen && self.listen.port() != 0
    }

    /// The place of a namespace by its name; `Some(None)` for rooms without one, `None` if no such namespace is declared.
    /// In development mode, as long as no namespace is declared, every namespace has the rules of rooms without one.
    pub fn namespace(&self, name: Option<&str>) -> Option<Option<usize>> {
        let Some(name) = name else { return Some(None) };
        let declared = self.namespaces.iter().position(|known| known.name == name);
        let open = self.development.0 && self.namespaces.is_empty();
        declared.map(Some).or(open.then_some(None))
    }

    /// The rules of a namespace by its name, or of rooms without one.
    pub fn rules(&self, namespace: Option<&str>) -> Option<&RoomRules> {
        let rules = |place: Option<usize>| place.map_or(&self.rooms, |place| &self.namespaces[place].rules);
        self.namespace(namespace).map(rules)
    }

    /// Names of settings that differ in `other` and are read at the start only.
    pub fn changed_but_fixed(&self, other: &Self) -> Vec<String> {
        let shown = |settings: &Self| {
            let mut all = Vec::new();
            settings.clone().visit_all(&mut |path, _, value| all.push((path.to_owned(), value.show())));
            all
        };
        let differs = shown(self).into_iter().zip(shown(&other.with_reloadable_of(self)));
        // A node without a name of its own gets another one each time.
        let fixed = differs.filter(|((path, old), (_, new))| old != new && path != "node_name");
        fixed.map(|((path, _), _)| path).collect()
    }

    /// These settings, with what may change while a node runs as `other` has it.
    fn with_reloadable_of(&self, other: &Self) -> Self {
        let (rooms, namespaces) = (other.rooms.clone(), other.namespaces.clone());
        Self {
            auth: other.auth.clone(),
            allowed_origins: other.allowed_origins.clone(),
            rooms,
            namespaces,
            ..self.clone()
        }
    }

    /// Calls `visitor` for every setting.
    pub(super) fn visit_all(&mut self, visitor: Visitor<'_>) {
        self.visit("", &About { doc: "", default: None }, visitor);
    }
}
