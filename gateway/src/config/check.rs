//! What must hold between settings, what is worth a warning, and development mode. Knows the settings and where they came
//! from, not how they were written.

use std::{net::SocketAddr, time::Duration};

use roomcast_shared::room::{RoomName, Separators};

use super::{
    hooks,
    load::{Check, Fault, Faults, Loaded, Loader},
    origin::OriginPattern,
    provenance::{Provenance, Source},
    rooms::RoomRules,
    secret::{RedisUrl, Secret},
    settings::{Concluded, Redis, Settings},
    tokens::{self, SECRET_LENGTH},
};

/// What is left at least of the time to stop when the last client was closed, so that it is told so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Nobody would wait longer for what a pause spares.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Timers that every connection has count milliseconds in four bytes.
const LONGEST_TIMER: Duration = Duration::from_hours(49 * 24);

/// Partitions of a cluster at most: with more of them a partition is hardly more than a slot.
const MOST_PARTITIONS: u32 = 4096;

/// Commands of one client that may wait, at most: all of them are asked each time that one is answered.
const MOST_PENDING: u32 = 1024;

/// Checks what was read as a whole and completes it.
pub(super) fn finish(mut loader: Loader, checks: &[Check]) -> Result<Loaded, Faults> {
    let asks_backend = *loader.provenance.of("hooks.connect.url") != Source::Default;
    let keyed = asks_backend || tokens::keyed(&loader.settings, &loader.provenance);
    let development = !keyed && !loader.settings.client.insecure;
    let mut found = reach(&loader.settings, keyed);
    found.extend(limits(&loader.settings));
    let mut found: Vec<_> = found.into_iter().map(|(path, message)| (path.to_owned(), message)).collect();
    found.extend(tokens::check(&loader.settings.auth));
    found.extend(hooks::check(&loader.settings));
    found.extend(checks.iter().flat_map(|check| check(&loader.settings)));
    for (path, message) in found {
        let source = loader.provenance.of(&path).clone();
        loader.faults.push(Fault::new(source, format!("{path}: {message}")));
    }
    if !loader.faults.is_empty() {
        return Err(Faults(loader.faults));
    }
    let Loader { mut settings, mut provenance, .. } = loader;
    let warnings = warnings(&settings, development);
    if settings.node_name.is_empty() {
        settings.node_name = node_name();
    }
    let notes = if development { develop(&mut settings, &mut provenance) } else { Vec::new() };
    Ok(Loaded { settings, provenance, warnings, notes, development })
}

/// Who may reach a node that anybody may use.
fn reach(settings: &Settings, keyed: bool) -> Vec<(&'static str, String)> {
    let mut listeners = vec![("listen", settings.listen)];
    if settings.internal_listen != settings.listen {
        listeners.push(("internal_listen", settings.internal_listen));
    }
    listeners.retain(|(_, address)| !address.ip().is_loopback());
    let fault = |(path, address): (&'static str, SocketAddr)| {
        let message = if settings.client.insecure {
            format!(
                "{address} can be reached from other machines, and client.insecure lets anybody do everything: \
                 listen on 127.0.0.1, or take client.insecure out"
            )
        } else {
            format!(
                "{address} can be reached from other machines, but there is no key to check tokens with: set \
                 auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET, for instance from `openssl rand -hex 32`) or \
                 auth.public_key (ROOMCAST_AUTH_PUBLIC_KEY_FILE), or let your backend decide with hooks.connect.url. \
                 Without either a node runs in development mode, on 127.0.0.1 only"
            )
        };
        (path, message)
    };
    if keyed && !settings.client.insecure { Vec::new() } else { listeners.into_iter().map(fault).collect() }
}

fn limits(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings { client, redis, shutdown, .. } = settings;
    let at_least_one = [
        ("client.channel_limit", client.channel_limit as usize),
        ("client.queue_max_size", client.queue_max_size),
        ("client.send_buffer", client.send_buffer),
        ("client.pending_commands", client.pending_commands as usize),
        ("websocket.message_size_limit", settings.websocket.message_size_limit),
        ("transports.request_size_limit", settings.transports.request_size_limit),
        ("channel.max_length", settings.channel.max_length),
        ("hub.inbox_size", settings.hub.inbox_size),
        ("redis.publish_queue", redis.publish_queue as usize),
    ];
    let some_time = [
        ("client.pong_timeout", client.pong_timeout),
        ("client.stale_close_delay", client.stale_close_delay),
        ("websocket.write_timeout", settings.websocket.write_timeout),
        ("http.header_timeout", settings.http.header_timeout),
        ("redis.connect_timeout", redis.connect_timeout),
        ("redis.io_timeout", redis.io_timeout),
    ];
    let mut found: Vec<_> = Vec::new();
    found.extend(at_least_one.iter().filter(|(_, count)| *count == 0).map(|(path, _)| *path));
    found.extend(some_time.iter().filter(|(_, time)| time.is_zero()).map(|(path, _)| *path));
    let mut found: Vec<_> = found.into_iter().map(|path| (path, "must be more than 0".to_owned())).collect();
    let counted_in_ms =
        [("client.ping_interval", client.ping_interval), ("client.expired_close_delay", client.expired_close_delay)];
    let too_long = counted_in_ms.iter().filter(|(_, time)| *time > LONGEST_TIMER);
    found.extend(too_long.map(|(path, _)| (*path, "must be 49d at most".to_owned())));
    if !client.ping_interval.is_zero() && client.pong_timeout >= client.ping_interval {
        found.push(("client.pong_timeout", "must be shorter than client.ping_interval".to_owned()));
    }
    if client.personal_rooms {
        let form = &client.personal_room_name;
        let namespace = RoomName::new(form, Separators::DEFAULT).namespace();
        if form.matches("{user}").count() != 1 {
            found.push(("client.personal_room_name", "must have {user} in it, once".to_owned()));
        } else if namespace.is_some_and(|name| !settings.namespaces.iter().any(|known| known.name == name)) {
            let message = "begins with a namespace that is not among [[namespaces]]".to_owned();
            found.push(("client.personal_room_name", message));
        }
    }
    if client.pending_commands > MOST_PENDING {
        let message = format!("{} is too many: write {MOST_PENDING} or fewer", client.pending_commands);
        found.push(("client.pending_commands", message));
    }
    if shutdown.timeout < shutdown.delay + shutdown.drain + LAST_WORDS {
        found.push((
            "shutdown.timeout",
            "must be at least a second longer than shutdown.delay and shutdown.drain together".to_owned(),
        ));
    }
    found.extend(redis_faults(redis));
    found
}

fn redis_faults(redis: &Redis) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let odd = |letter: char| letter.is_whitespace() || letter.is_control() || "{}".contains(letter);
    if redis.prefix.contains(odd) {
        found.push(("redis.prefix", "must not contain blanks, control characters or braces".to_owned()));
    }
    let several = &redis.urls.0;
    if redis.url.is_some() && !several.is_empty() {
        found.push(("redis.urls", "is set beside redis.url: keep one of them".to_owned()));
    }
    if several.iter().any(RedisUrl::is_cluster) {
        let message = "has a cluster in it, which spreads rooms by itself: write it as redis.url";
        found.push(("redis.urls", message.to_owned()));
    }
    let mut known = several.iter().enumerate();
    if known.any(|(place, url)| several[..place].contains(url)) {
        found.push(("redis.urls", "has the same Redis twice".to_owned()));
    }
    if redis.gathering_pause > LONGEST_PAUSE {
        found.push(("redis.gathering_pause", format!("must be {}ms at most", LONGEST_PAUSE.as_millis())));
    }
    if redis.cluster_partitions > MOST_PARTITIONS {
        found.push(("redis.cluster_partitions", format!("must not be more than {MOST_PARTITIONS}")));
    } else if redis.cluster_partitions > 0 && !redis.every_url().any(RedisUrl::is_cluster) {
        let message = "is for a Redis Cluster: write redis.url as redis+cluster://host:6379, or take it out";
        found.push(("redis.cluster_partitions", message.to_owned()));
    }
    found
}

fn warnings(settings: &Settings, development: bool) -> Vec<String> {
    let mut warnings = tokens::warnings(&settings.auth);
    if development && settings.redis.every_url().next().is_some() {
        warnings.push(
            "redis.url is set, but no key: other nodes will not accept the tokens of this one, nor this one theirs; \
             set the same auth.hmac_secret on every node"
                .to_owned(),
        );
    }
    if settings.client.insecure {
        warnings
            .push("client.insecure is on: anybody who reaches this node may do everything, without a token".to_owned());
    }
    if settings.one_listener() && !settings.listen.ip().is_loopback() {
        warnings.push(
            "internal_listen is the same as listen: clients can reach metrics, health and the server API as well"
                .to_owned(),
        );
    }
    if settings.websocket.message_size_limit > settings.client.queue_max_size {
        warnings.push(
            "websocket.message_size_limit is above client.queue_max_size: one large message may close those it goes to"
                .to_owned(),
        );
    }
    if settings.client.ping_interval.subsec_nanos() != 0 {
        warnings.push("client.ping_interval is not in whole seconds, in which clients are told of it".to_owned());
    }
    warnings.extend(hooks::warnings(settings));
    warnings
}

/// Opens what nobody has set, and says so.
fn develop(settings: &mut Settings, provenance: &mut Provenance) -> Vec<String> {
    settings.development = Concluded(true);
    settings.auth.hmac_secret = Some(random_secret());
    provenance.record("auth.hmac_secret", Source::Development);
    if *provenance.of("allowed_origins") == Source::Default {
        settings.allowed_origins = vec![OriginPattern::any()];
        provenance.record("allowed_origins", Source::Development);
    }
    if *provenance.of("playground") == Source::Default {
        settings.playground = true;
        provenance.record("playground", Source::Development);
    }
    // Nobody balances clients between nodes here, so that an end by Ctrl-C need not wait for balancers.
    if *provenance.of("shutdown.delay") == Source::Default {
        settings.shutdown.delay = Duration::ZERO;
        provenance.record("shutdown.delay", Source::Development);
    }
    if !provenance.any_below("rooms.") && settings.namespaces.is_empty() {
        open(&mut settings.rooms, provenance);
    }
    vec![
        "development mode, because no key is set: loopback only, a random secret for tokens, and whatever is not set is \
         open; set auth.hmac_secret or auth.public_key to leave it"
            .to_owned(),
    ]
}

fn open(rules: &mut RoomRules, provenance: &mut Provenance) {
    rules.allow_subscribe_for_client = true;
    rules.allow_subscribe_for_anonymous = true;
    rules.allow_publish_for_client = true;
    rules.allow_publish_for_anonymous = true;
    for verb in ["subscribe", "publish"] {
        for whom in ["client", "anonymous"] {
            provenance.record(&format!("rooms.allow_{verb}_for_{whom}"), Source::Development);
        }
    }
}

fn random_secret() -> Secret {
    use std::fmt::Write;
    let bytes: [u8; SECRET_LENGTH] = rand::random();
    let text = bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    });
    Secret::new(&text)
}

/// Name of the host and four letters or digits, so that two nodes of one host differ.
fn node_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("node");
    format!("{host}-{:04x}", rand::random::<u16>())
}
