//! Settings from a file, the environment and flags: what each comes to, and what is said of every kind of fault.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

use std::{collections::BTreeSet, ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use roomcast::config::{self, Flag, Loaded, LogFormat, LogLevel, OriginPattern, Settings, Sources};

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";

/// An authority that has signed nothing but itself.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUU50ZpCKlskcD1zYbc/1S0vzRgHwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwMDA0NTNaGA8yMTI2MTAzMTAwMDQ1
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABB0w
BcmhQLzuO3rtKTg5faTst9APbLa4M/94T4JZwg9ibuUa0ia3qzHntUUtJNUZDgha
IHaavKlTUTAE4S/43CujUzBRMB0GA1UdDgQWBBQ6ynZfTvT/6ihSY+knjtweJyk4
kzAfBgNVHSMEGDAWgBQ6ynZfTvT/6ihSY+knjtweJyk4kzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIGVwoZQB3AV8E2b+/g/MN1rKv7ILCpRT+mgC
bTcNwd+TAiBQLyfnIczDj0QKGQVarsndw5Kj9HhN6ylT92XngkdPKQ==
-----END CERTIFICATE-----";

/// One set of sources in a folder of its own.
struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), sources: Sources::default() }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("roomcast.toml");
        std::fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    fn content(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    /// Sets a variable; `@` at the beginning of its value stands for the folder.
    fn variable(mut self, name: &str, value: &str) -> Self {
        let folder = self.folder.path().to_str().unwrap();
        let value = value.strip_prefix('@').map_or_else(|| value.to_owned(), |rest| format!("{folder}{rest}"));
        self.sources.environment.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn flag(mut self, path: &str, value: &str) -> Self {
        let flag = Flag { name: "--set".to_owned(), path: path.to_owned(), value: value.to_owned() };
        self.sources.flags.push(flag);
        self
    }

    fn load(&self) -> Loaded {
        config::load(&self.sources, &[]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// The faults, one per line, with file names without their folder.
    fn faults(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let faults = config::load(&self.sources, &[]).map(|_| ()).expect_err("these sources have faults");
        faults.0.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

fn file(text: &str) -> Case {
    Case::new().file(text)
}

fn variable(name: &str, value: &str) -> Case {
    Case::new().variable(name, value)
}

fn flag(path: &str, value: &str) -> Case {
    Case::new().flag(path, value)
}

#[track_caller]
fn assert_faults(case: &Case, expected: &[&str]) {
    let faults = case.faults();
    assert_eq!(faults.len(), expected.len(), "{faults:#?} instead of {expected:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault:?}\nshould say {expected:?}");
    }
}

#[test]
fn nothing_set_is_development_mode_and_everything_not_set_is_open() {
    let loaded = Case::new().load();
    let settings = &loaded.settings;
    assert!(loaded.development);
    assert_eq!(settings.listen, "127.0.0.1:8000".parse::<SocketAddr>().unwrap());
    assert_eq!(settings.internal_listen, "127.0.0.1:9000".parse::<SocketAddr>().unwrap());
    assert!(settings.playground);
    assert_eq!(settings.allowed_origins, [OriginPattern::any()]);
    assert!(settings.rooms.allow_subscribe_for_client && settings.rooms.allow_publish_for_client);
    assert_eq!(settings.auth.hmac_secret.as_ref().unwrap().reveal().len(), 64);
    assert_eq!(settings.rules(Some("chat")), Some(&settings.rooms));
    assert_ne!(settings.auth.hmac_secret, Case::new().load().settings.auth.hmac_secret);
    assert!(loaded.notes[0].contains("development mode"), "{:?}", loaded.notes);
}

#[test]
fn development_mode_leaves_alone_what_was_set() {
    let loaded = file("playground = false\nallowed_origins = []\n[rooms]\nallow_subscribe_for_client = true").load();
    assert!(loaded.development);
    assert!(!loaded.settings.playground);
    assert!(loaded.settings.allowed_origins.is_empty());
    assert!(!loaded.settings.rooms.allow_publish_for_client);
}

#[test]
fn a_key_ends_development_mode() {
    let loaded = variable("ROOMCAST_AUTH_HMAC_SECRET", SECRET).load();
    assert!(!loaded.development);
    assert!(!loaded.settings.playground);
    assert!(loaded.settings.allowed_origins.is_empty());
    assert!(!loaded.settings.rooms.allow_subscribe_for_client);
    assert_eq!(loaded.settings.rules(Some("chat")), None);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_documented_defaults() {
    let Settings { client, websocket, channel, redis, shutdown, ready, .. } = Settings::default();
    assert_eq!((client.ping_interval, client.pong_timeout), (Duration::from_secs(25), Duration::from_secs(8)));
    assert_eq!((client.stale_close_delay.as_secs(), client.expired_close_delay.as_secs()), (10, 25));
    assert_eq!((client.queue_max_size, client.send_buffer, client.channel_limit), (1_048_576, 65_536, 128));
    assert_eq!((client.connection_limit, client.connection_rate_limit, client.user_connection_limit), (0, 0, 0));
    assert_eq!((websocket.message_size_limit, websocket.write_timeout.as_secs()), (65_536, 1));
    assert_eq!(channel.max_length, 255);
    assert_eq!((redis.prefix.as_str(), redis.url), ("roomcast", None));
    assert_eq!((redis.connect_timeout.as_secs(), redis.io_timeout.as_secs()), (1, 4));
    assert_eq!((shutdown.delay.as_secs(), shutdown.drain.as_secs(), shutdown.timeout.as_secs()), (5, 30, 45));
    assert_eq!(ready.broker_grace.as_secs(), 30);
}

#[test]
fn flags_go_before_variables_and_variables_before_the_file() {
    let text = "[redis]\nprefix = \"file\"\nio_timeout = \"9s\"\nconnect_timeout = \"9s\"";
    let case = file(text).variable("ROOMCAST_REDIS_PREFIX", "variable").variable("ROOMCAST_REDIS_IO_TIMEOUT", "5s");
    let loaded = case.flag("redis.prefix", "flag").load();
    assert_eq!(loaded.settings.redis.prefix, "flag");
    assert_eq!(loaded.settings.redis.io_timeout.as_secs(), 5);
    assert_eq!(loaded.settings.redis.connect_timeout.as_secs(), 9);
    let source = |path: &str| loaded.provenance.of(path).to_string();
    assert_eq!(source("redis.prefix"), "--set");
    assert_eq!(source("redis.io_timeout"), "ROOMCAST_REDIS_IO_TIMEOUT");
    assert!(source("redis.connect_timeout").ends_with("roomcast.toml:4"), "{}", source("redis.connect_timeout"));
    assert_eq!(source("redis.url"), "default");
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let case = Case::new().content("other.toml", "node_name = \"named\"").variable("ROOMCAST_CONFIG", "@/other.toml");
    assert_eq!(case.load().settings.node_name, "named");
}

/// A value that a setting takes, by how the table says it is written.
fn some_value(path: &str, kind: &str) -> &'static str {
    match kind {
        "address" => "127.0.0.1:0",
        "true or false" => "true",
        "number" => "7",
        "size" => "7KB",
        "duration" if path == "client.pong_timeout" => "7s",
        "duration" if path == "redis.gathering_pause" => "7ms",
        "duration" => "77s",
        "list of origins" => "https://example.com",
        "list of networks" => "10.0.0.0/8",
        "PEM" => "-----BEGIN PUBLIC KEY-----",
        "URL" => "https://example.com/keys",
        "list of header names" => "cookie, authorization",
        "list of headers, secret" => "X-Key: secret",
        "list of STATUS: error CODE TEXT" => "503: temporary 1503 later",
        "certificates (PEM)" => CERTIFICATE,
        "URL, secret" => "redis://localhost",
        "list of URLs, secret" => "redis://localhost, redis://localhost:6380",
        "word" => word(path),
        _ => "text",
    }
}

/// One of the words that this setting takes.
fn word(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("level") => "debug",
        Some("force_recovery_mode") => "cache",
        Some("slow_consumer") => "resync",
        Some("allowed_delta_types") => "fossil",
        _ => "json",
    }
}

#[test]
fn every_setting_has_a_variable_of_its_own_that_sets_it() {
    let table = config::markdown_table();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    let rows: Vec<_> = table.lines().skip(2).map(cells).filter(|row| !row[2].is_empty()).collect();
    let variables: BTreeSet<_> = rows.iter().map(|row| row[2].clone()).collect();
    assert_eq!(variables.len(), rows.len());
    assert!(rows.len() > 40);
    for row in &rows {
        let (path, name) = (&row[1], &row[2]);
        assert_eq!(*name, format!("ROOMCAST_{}", path.replace('.', "_").to_uppercase()));
        let mut case = flag("shutdown.timeout", "300s").variable(name, some_value(path, &row[3]));
        if let Some(hook) = path.strip_prefix("rooms.").and_then(|rule| rule.strip_suffix("_hook")) {
            case = case.flag(&format!("hooks.{hook}.url"), "https://backend/hook");
        }
        if path.starts_with("auth.subscription_token.") {
            case = case.variable("ROOMCAST_AUTH_SUBSCRIPTION_TOKEN_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----");
        }
        if path == "redis.cluster_partitions" {
            case = case.variable("ROOMCAST_REDIS_URL", "redis+cluster://localhost");
        }
        if path != "shutdown.timeout" {
            assert_eq!(case.load().provenance.of(path).to_string(), *name);
        }
    }
}

#[test]
fn several_redis_are_read_from_a_list_or_a_text() {
    let list = file("redis.urls = [\"redis://:hunter2@a\", \"redis+sentinel://b,c:1/main\"]").load();
    let text = flag("redis.urls", "redis://:hunter2@a, redis+sentinel://b,c:1/main").load();
    for loaded in [list, text] {
        let urls: Vec<_> = loaded.settings.redis.every_url().map(|url| url.reveal().to_owned()).collect();
        assert_eq!(urls, ["redis://:hunter2@a", "redis+sentinel://b,c:1/main"]);
        let shown = loaded.listing();
        assert!(shown.contains("redis://:***@a, redis+sentinel://b,c:1/main"), "{shown}");
    }
    for (text, expected) in [
        ("urls = [\"redis://a\"]\nurl = \"redis://b\"", "redis.urls: is set beside redis.url: keep one of them"),
        ("urls = [\"redis://a\", \"redis+cluster://b\"]", "redis.urls: has a cluster in it"),
        ("urls = [\"redis://a\", \"redis://b\", \"redis://a\"]", "redis.urls: has the same Redis twice"),
        ("urls = [\"redis://a\", \"nonsense\"]", "redis.urls: is not a Redis URL: write redis://"),
        ("urls = 5", "redis.urls: is not a list: write ["),
        ("url = \"redis://a\"\ncluster_partitions = 5", "redis.cluster_partitions: is for a Redis Cluster"),
        ("url = \"redis+cluster://a\"\ncluster_partitions = 5000", "must not be more than 4096"),
        ("url = \"redis+sentinel://a\"", "redis.url: names no service"),
        ("prefix = \"a{b}\"", "redis.prefix: must not contain blanks, control characters or braces"),
    ] {
        assert_faults(&file(&format!("[redis]\n{text}")), &[expected]);
    }
}

#[test]
fn durations_and_sizes_are_read_as_they_are_written() {
    let durations = [("300s", 300_000), ("5m", 300_000), ("1h", 3_600_000), ("250ms", 250), ("1h30m", 5_400_000)];
    assert_eq!(flag("redis.gathering_pause", "1ms500us").load().settings.redis.gathering_pause.as_micros(), 1500);
    for (text, milliseconds) in durations {
        let loaded = flag("client.stale_close_delay", text).load();
        assert_eq!(loaded.settings.client.stale_close_delay, Duration::from_millis(milliseconds), "{text}");
    }
    let sizes =
        [("64KB", 65_536), ("1MB", 1_048_576), ("512B", 512), ("512", 512), ("1GB", 1 << 30), ("2 mb", 2 << 20)];
    for (text, bytes) in sizes {
        assert_eq!(flag("hub.inbox_size", text).load().settings.hub.inbox_size, bytes, "{text}");
    }
    assert_eq!(file("hub.inbox_size = 4_096").load().settings.hub.inbox_size, 4096);
}

#[test]
fn addresses_are_read_as_people_write_them() {
    for (text, address) in [
        (":8000", "0.0.0.0:8000"),
        ("localhost:8000", "127.0.0.1:8000"),
        ("0.0.0.0:8000", "0.0.0.0:8000"),
        ("[::]:8000", "[::]:8000"),
    ] {
        let case = variable("ROOMCAST_AUTH_HMAC_SECRET", SECRET).flag("listen", text);
        assert_eq!(case.load().settings.listen, address.parse().unwrap(), "{text}");
    }
}

#[test]
fn one_listener_serves_all_where_the_addresses_are_the_same() {
    assert!(!Case::new().load().settings.one_listener());
    assert!(flag("internal_listen", "127.0.0.1:8000").load().settings.one_listener());
    let free = flag("listen", "127.0.0.1:0").flag("internal_listen", "127.0.0.1:0");
    assert!(!free.load().settings.one_listener());
}

#[test]
fn lists_are_arrays_in_the_file_and_have_commas_elsewhere() {
    let loaded = file("allowed_origins = [\"https://a.example\", \"https://*.b.example\"]")
        .variable("ROOMCAST_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7,")
        .load();
    assert_eq!(loaded.settings.allowed_origins.len(), 2);
    let networks: Vec<_> = loaded.settings.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32"]);
}

#[test]
fn origins_match_whole_or_by_whole_labels() {
    let case = flag("allowed_origins", "https://example.com:8443,https://*.example.org,http://localhost:3000");
    let patterns = case.load().settings.allowed_origins;
    let matches = |origin: &str| patterns.iter().any(|pattern| pattern.matches(origin));
    let good =
        ["https://example.com:8443", "HTTPS://Example.com:8443", "https://a.example.org", "https://a.b.example.org"];
    for origin in good {
        assert!(matches(origin), "{origin}");
    }
    for origin in [
        "https://example.com",
        "http://example.com:8443",
        "https://example.org",
        "https://badexample.org",
        "https://.example.org",
        "https://evil.com/.example.org",
        "https://evil.com#.example.org",
        "https://a.example.org:8443",
        "https://a.example.org.evil.com",
        "null",
        "",
    ] {
        assert!(!matches(origin), "{origin}");
    }
    assert!(OriginPattern::any().matches("null"));
}

#[test]
fn namespaces_have_rules_of_their_own() {
    let text = "[rooms]\nallow_subscribe_for_client = true\n[[namespaces]]\nname = \"chat\"\n\
                allow_publish_for_subscriber = true\n[[namespaces]]\nname = \"news.eu\"\n";
    let loaded = file(text).flag("namespaces.chat.allow_user_limited_channels", "true").load();
    let settings = &loaded.settings;
    let chat = settings.rules(Some("chat")).unwrap();
    assert!(chat.allow_publish_for_subscriber && chat.allow_user_limited_channels);
    assert!(!chat.allow_subscribe_for_client);
    assert!(settings.rules(None).unwrap().allow_subscribe_for_client);
    assert!(settings.rules(Some("news.eu")).is_some());
    assert!(settings.rules(Some("other")).is_none());
}

#[test]
fn issuers_have_keys_of_their_own() {
    let text = format!(
        "[[auth.issuers]]\nname = \"shop\"\nissuer = \"https://shop.example/\"\nhmac_secret = {SECRET:?}\n\
         [[auth.issuers]]\nname = \"idp.eu\"\nissuer_regex = \"https://.*\"\njwks_url = \"https://idp.example/keys\"\n"
    );
    let loaded = file(&text).flag("auth.issuers.idp.eu.audience", "chat").load();
    let [shop, idp] = &loaded.settings.auth.issuers[..] else { panic!("{:?}", loaded.settings.auth.issuers) };
    assert_eq!((shop.name.as_str(), shop.keys.issuer.as_deref()), ("shop", Some("https://shop.example/")));
    assert_eq!(shop.keys.hmac_secret.as_ref().unwrap().reveal(), SECRET);
    assert_eq!(idp.keys.jwks_url.as_ref().unwrap().reveal(), "https://idp.example/keys");
    assert_eq!(idp.keys.audience.as_deref(), Some("chat"));
    let source = loaded.provenance.of("auth.issuers.idp.eu.jwks_url").to_string();
    assert!(source.ends_with("roomcast.toml:8"), "{source}");
    assert!(!loaded.development && loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let listing = loaded.listing();
    assert!(listing.contains("auth.issuers.shop.hmac_secret") && !listing.contains(SECRET), "{listing}");
    let misspelt = file(&format!("{text}isuer = \"i\"\n"));
    assert_faults(
        &misspelt,
        &[":9: auth.issuers.idp.eu.isuer: unknown setting; did you mean auth.issuers.idp.eu.issuer?"],
    );
}

#[test]
fn keys_of_tokens_that_contradict_each_other_are_faults() {
    let issuer = |rest: &str| format!("[[auth.issuers]]\nname = \"idp\"\n{rest}\n");
    let with_key = |rest: &str| issuer(&format!("hmac_secret = {SECRET:?}\n{rest}"));
    for (text, expected) in [
        (with_key(""), ":2: auth.issuers.idp: has no issuer: say which iss its tokens have"),
        (issuer("issuer = \"i\""), ":2: auth.issuers.idp: has no key: give it hmac_secret, public_key or jwks_url"),
        (
            with_key("issuer = \"i\"") + &with_key("issuer = \"i\"").replace("idp", "two"),
            ":6: auth.issuers.two: has the same issuer as idp",
        ),
        (
            with_key("issuer = \"i\"\nissuer_regex = \"i\""),
            ":5: auth.issuers.idp.issuer_regex: is set, and so is issuer",
        ),
        ("[auth]\naudience = \"a\"\naudience_regex = \"a\"".to_owned(), ":3: auth.audience_regex: is set, and so is"),
        ("auth.jwks_refresh = \"10ms\"".to_owned(), "auth.jwks_refresh: must be at least 1s"),
        ("[auth.subscription_token]\naudience = \"a\"".to_owned(), "auth.subscription_token: has no key of its own"),
    ] {
        assert_faults(&file(&text), &[expected]);
    }
}

#[test]
fn every_kind_of_key_ends_development_mode() {
    let pem = "-----BEGIN PUBLIC KEY-----";
    for section in ["auth", "auth.subscription_token"] {
        for (key, value) in [
            ("hmac_secret", SECRET),
            ("hmac_previous_secret", SECRET),
            ("public_key", pem),
            ("jwks_url", "https://h/k"),
        ] {
            let loaded = flag(&format!("{section}.{key}"), value).load();
            assert!(!loaded.development && loaded.settings.auth.any_key(), "{section}.{key}");
        }
    }
    assert!(flag("auth.audience", "chat").load().development);
}

#[test]
fn keys_that_come_over_an_open_way_are_warned_of() {
    for (url, warned) in [
        ("https://idp.example/keys", false),
        ("http://localhost:8080/keys", false),
        ("http://127.0.0.1/keys", false),
        ("http://[::1]:8080/keys", false),
        ("http://idp.example/keys", true),
        ("http://10.0.0.1/keys", true),
    ] {
        let warnings = flag("auth.jwks_url", url).load().warnings;
        assert_eq!(warnings.iter().any(|warning| warning.contains("auth.jwks_url is not https")), warned, "{url}");
    }
    let listing = flag("auth.jwks_url", "https://user:hidden@idp.example/keys").load().listing();
    assert!(listing.contains("https://user:***@idp.example/keys"), "{listing}");
    let short = flag("auth.subscription_token.hmac_secret", "short").load().warnings;
    assert!(short[0].contains("auth.subscription_token.hmac_secret has 5 bytes"), "{short:?}");
}

#[test]
fn values_are_read_from_files_by_any_source() {
    let case = Case::new()
        .content("secret", &format!("{SECRET}\n"))
        .content("key", "two\nlines\r\n")
        .variable("ROOMCAST_AUTH_HMAC_SECRET_FILE", "@/secret")
        .variable("ROOMCAST_API_KEY_FILE", "@/key");
    let loaded = case.load();
    assert_eq!(loaded.settings.auth.hmac_secret.as_ref().unwrap().reveal(), SECRET);
    assert_eq!(loaded.settings.api.key.unwrap().reveal(), "two\nlines");
    let source = loaded.provenance.of("auth.hmac_secret").to_string();
    assert!(source.starts_with("ROOMCAST_AUTH_HMAC_SECRET_FILE (/"), "{source}");

    let case = Case::new().content("secret", SECRET);
    let path = case.folder.path().join("secret").display().to_string();
    let loaded = case.file(&format!("[auth]\nhmac_secret_file = \"{path}\"")).load();
    assert_eq!(loaded.settings.auth.hmac_secret.as_ref().unwrap().reveal(), SECRET);
}

#[test]
fn a_later_source_replaces_a_value_from_a_file() {
    let case = Case::new().content("key", "from-a-file").variable("ROOMCAST_API_KEY_FILE", "@/key");
    assert_eq!(case.flag("api.key", "from-a-flag").load().settings.api.key.unwrap().reveal(), "from-a-flag");
}

#[test]
fn every_kind_of_fault_in_the_file_names_its_line_and_what_to_do() {
    for (text, expected) in [
        ("\n\nredis.prefx = \"a\"", "roomcast.toml:3: redis.prefx: unknown setting; did you mean redis.prefix?"),
        ("[redsi]\nurl = \"redis://h\"", "roomcast.toml:1: redsi: unknown section; did you mean redis?"),
        ("hmac_secret = \"x\"", "roomcast.toml:1: hmac_secret: unknown setting; did you mean auth.hmac_secret?"),
        ("zzz = 1", "zzz: unknown setting; the nearest known name is "),
        ("[client]\nping_interval = 25", ":2: client.ping_interval: \"25\" has no unit: write 25s for seconds"),
        ("[client]\nping_interval = \"25\"", "has no unit: write 25s for seconds"),
        ("[client]\nping_interval = \"fast\"", ":2: client.ping_interval: \"fast\" is not a duration: write"),
        ("[client]\nping_interval = \"1.5s\"", "\"1.5s\" is not a duration"),
        ("[client]\nping_interval = \"-5s\"", "\"-5s\" is not a duration"),
        ("[client]\nping_interval = \"99999999999999999999s\"", "is not a duration"),
        ("[client]\nping_interval = \"18446744073709551615h\"", "is not a duration"),
        ("[client]\nping_interval = \"18446744073709551615s\"", "is longer than a year (365d)"),
        ("[client]\nqueue_max_size = \"1XB\"", "\"1XB\" has no unit of size that is known: write"),
        ("[client]\nqueue_max_size = \"99999999999GB\"", "is not a size"),
        ("[client]\nqueue_max_size = -1", "\"-1\" is not a size"),
        ("[client]\nchannel_limit = \"many\"", "\"many\" is not a whole number from 0 to 4294967295"),
        ("[client]\nchannel_limit = 4294967296", "is not a whole number"),
        ("[client]\nchannel_limit = [1]", "is a list where one value is expected (number)"),
        ("client = 5", ":1: client: is a section: write [client] on a line of its own"),
        ("[listen]\nport = 1", ":1: listen: is a table where one value is expected"),
        ("listen = 8000", "listen: \"8000\" is not an IP address and port"),
        ("listen = \"example.com:80\"", "is not an IP address and port: write 127.0.0.1:8000"),
        ("playground = \"yes\"", "\"yes\" is neither true nor false"),
        ("node_name = 5", "node_name: has to stand in quotes: \"5\""),
        ("node_name = 2020-01-01", "is a date"),
        ("playground = 0x1", "in decimal digits"),
        ("allowed_origins = true", "is not a list: write ["),
        ("allowed_origins = [\"example.com\"]", "\"example.com\" has no scheme: write https://example.com"),
        ("allowed_origins = [\"https://example.com/\"]", "a slash at the end"),
        ("allowed_origins = [\"https://a.*.com\"]", "a wildcard stands for whole subdomains"),
        ("trusted_proxies = [\"ten\"]", "\"ten\" is not a network: write 10.0.0.0/8"),
        ("[log]\nlevel = \"inof\"", "log.level: \"inof\" is not one of error, warn, info, debug, trace"),
        ("[log]\nformat = \"xml\"", "is not one of auto, pretty, json"),
        ("[redis]\nurl = \"http://h\"", "redis.url: is not a Redis URL: write redis://"),
        ("[redis]\nurl = \"\"", "redis.url: is empty"),
        ("[api]\nkey = \"\"", "api.key: is empty: give a value, or leave the setting out"),
        ("[auth]\npublic_key = \"/etc/key.pem\"", "is not PEM text: it begins with -----BEGIN PUBLIC KEY-----"),
        ("[auth]\npublic_key = \"-----BEGIN PRIVATE KEY-----\"", "is a private key"),
        (
            "[auth]\njwks_url = \"ftp://h/keys\"",
            ":2: auth.jwks_url: is not the address of a web server: write https://",
        ),
        ("[auth]\naudience_regex = \"a(\"", ":2: auth.audience_regex: \"a(\" is no regular expression: unclosed group"),
        ("[auth]\nissuer_regex = \"a)|(b\"", "is no regular expression: unopened group"),
        ("[auth]\nhmac_secret_file = \"/does/not/exist\"", "auth.hmac_secret: cannot read that file: No such file"),
        ("[api]\nkey = \"a\"\nkey_file = \"b\"", ":3: api.key: is given both as it is and as a file"),
        ("[api]\nkey_file = 5", "is no text in quotes that names a file"),
    ] {
        assert_faults(&file(text), &[expected]);
    }
}

#[test]
fn every_kind_of_fault_in_rooms_namespaces_and_issuers_names_its_line_and_what_to_do() {
    for (text, expected) in [
        ("[rooms]\nslow_consumer = \"drop\"", "is not one of close, resync, latest"),
        ("[rooms]\nchannel_regex = \"(\"", "is no regular expression"),
        ("[rooms]\npresense = true", ":2: rooms.presense: unknown setting; "),
        ("[rooms]\nallow_subscribe_for_clients = true", "did you mean rooms.allow_subscribe_for_client?"),
        ("[[namespaces]]\nname = \"chat\"\nhistory_size = -5", ":3: namespaces.chat.history_size: "),
        ("[[namespaces]]\nname = \"chat\"\nallow_publish_for = 5", "did you mean namespaces.chat.allow_publish_for_"),
        ("[[namespaces]]\nallow_publish_for_client = true", ":1: namespaces: a namespace has no name"),
        ("[[namespaces]]\nname = \"a b\"", ":2: namespaces: \"a b\" is no name: use"),
        ("[[namespaces]]\nname = \"c\"", "two or more"),
        ("[[namespaces]]\nname = 5", "is a text in quotes"),
        ("[[namespaces]]\nname = \"chat\"\n[[namespaces]]\nname = \"chat\"", ":4: namespaces: chat is declared twice"),
        ("[namespaces]\nname = \"chat\"", "write [[namespaces]]"),
        ("namespaces = [5]", "write [[namespaces]]"),
        ("[[auth.issuers]]\nissuer = \"i\"", ":1: auth.issuers: an issuer has no name: add name"),
        ("[auth]\nissuers = 5", ":2: auth.issuers: write [[auth.issuers]], once for each of them"),
        ("[auth.issuers]\nname = \"idp\"", "write [[auth.issuers]]"),
    ] {
        assert_faults(&file(text), &[expected]);
    }
}

#[test]
fn what_is_no_toml_is_said_with_its_lines() {
    let faults = file("listen = \nredis.prefix = \"a\"\nredis.prefix = \"b\"\n").faults();
    assert!(faults.iter().any(|fault| fault.starts_with("roomcast.toml:1: ")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("roomcast.toml:3: ")), "{faults:?}");
    let mut case = Case::new();
    case.sources.file = Some(case.folder.path().join("missing.toml"));
    assert_faults(&case, &["missing.toml: cannot read the settings file: No such file"]);
}

#[test]
fn every_kind_of_fault_in_the_environment_names_the_variable() {
    for (name, value, expected) in [
        ("ROOMCAST_REDIS_ULR", "x", "ROOMCAST_REDIS_ULR: unknown setting; did you mean ROOMCAST_REDIS_URL?"),
        ("ROOMCAST_HMAC_SECRET", "x", "did you mean ROOMCAST_AUTH_HMAC_SECRET?"),
        ("ROOMCAST_CONFIG", "", "ROOMCAST_CONFIG: is empty: name a settings file"),
        ("ROOMCAST_CONFIG_FILE", "x", "did you mean ROOMCAST_CONFIG?"),
        ("ROOMCAST_SERVICE_HOSTS", "x", "ROOMCAST_SERVICE_HOSTS: unknown setting; "),
        ("ROOMCAST_PORT", "8000", "ROOMCAST_PORT: unknown setting; "),
        ("ROOMCAST_NAMESPACES", "[]", "namespaces are declared in the settings file only"),
        ("ROOMCAST_AUTH_ISSUERS_IDP_ISSUER", "i", "auth.issuers are declared in the settings file only"),
        (
            "ROOMCAST_CLIENT_PING_INTERVAL",
            "25",
            "ROOMCAST_CLIENT_PING_INTERVAL: client.ping_interval: \"25\" has no unit",
        ),
        ("ROOMCAST_API_KEY", "", "ROOMCAST_API_KEY: api.key: is empty"),
        ("ROOMCAST_API_KEY", " ", "ROOMCAST_API_KEY: api.key: is empty"),
        ("ROOMCAST_API_KEY_FILE", "/does/not/exist", "ROOMCAST_API_KEY_FILE (/does/not/exist): api.key: cannot read"),
        ("ROOMCAST_API_KEY_FILE", "/dev/zero", "it is longer than 65536 bytes"),
        ("ROOMCAST_ROOMS_HISTORY_SIZE", "-5", "ROOMCAST_ROOMS_HISTORY_SIZE: rooms.history_size: "),
    ] {
        assert_faults(&variable(name, value), &[expected]);
    }
    let both = variable("ROOMCAST_API_KEY", "a").variable("ROOMCAST_API_KEY_FILE", "b");
    assert_faults(&both, &["ROOMCAST_API_KEY_FILE: api.key: is given both"]);
}

#[test]
#[cfg(unix)]
fn a_variable_that_is_not_utf_8_is_a_fault() {
    use std::os::unix::ffi::OsStringExt;
    let mut case = Case::new();
    case.sources.environment.push((OsString::from("ROOMCAST_NODE_NAME"), OsString::from_vec(vec![0xff])));
    assert_faults(&case, &["ROOMCAST_NODE_NAME: is not valid UTF-8"]);
}

#[test]
fn a_flag_is_named_by_its_fault() {
    let unknown = "--set: redis.prefxi: unknown setting; did you mean redis.prefix?";
    assert_faults(&flag("redis.prefxi", "x"), &[unknown]);
    assert_faults(&flag("log.level", "loud"), &["--set: log.level: \"loud\" is not one of"]);
}

#[test]
fn variables_of_kubernetes_services_are_passed_over_with_one_note() {
    let mut case = variable("ROOMCAST_AUTH_HMAC_SECRET", SECRET);
    let links = [
        ("ROOMCAST_SERVICE_HOST", "10.96.0.7"),
        ("ROOMCAST_SERVICE_PORT", "8000"),
        ("ROOMCAST_SERVICE_PORT_CLIENTS", "8000"),
        ("ROOMCAST_PORT", "tcp://10.96.0.7:8000"),
        ("ROOMCAST_PORT_8000_TCP", "tcp://10.96.0.7:8000"),
        ("ROOMCAST_PORT_8000_TCP_PROTO", "tcp"),
        ("ROOMCAST_PORT_8000_TCP_PORT", "8000"),
        ("ROOMCAST_PORT_8000_TCP_ADDR", "10.96.0.7"),
        ("ROOMCAST_INTERNAL_SERVICE_HOST", "10.96.0.8"),
        ("ROOMCAST_INTERNAL_SERVICE_PORT", "9000"),
        ("ROOMCAST_INTERNAL_PORT", "tcp://10.96.0.8:9000"),
        ("ROOMCAST_INTERNAL_PORT_9000_TCP_ADDR", "10.96.0.8"),
    ];
    for (name, value) in links {
        case = case.variable(name, value);
    }
    let notes = case.load().notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("ROOMCAST_INTERNAL_PORT") && notes[0].contains("11 more"), "{notes:?}");
}

#[test]
fn all_faults_come_at_once_each_with_its_source() {
    let text = "listne = \"x\"\n[client]\npong_timeout = \"30s\"\nchannel_limit = \"x\"\n[rooms]\npresenc = true\n";
    let case = file(text).variable("ROOMCAST_API_KEY", "").variable("ROOMCAST_REDIS_ULR", "x").flag("log.level", "x");
    assert_faults(
        &case,
        &[
            "roomcast.toml:1: listne: unknown setting; did you mean listen?",
            "roomcast.toml:4: client.channel_limit: ",
            "roomcast.toml:6: rooms.presenc: ",
            "ROOMCAST_REDIS_ULR: ",
            "ROOMCAST_API_KEY: ",
            "--set: log.level: ",
            "roomcast.toml:3: client.pong_timeout: must be shorter than client.ping_interval",
        ],
    );
}

#[test]
fn a_faulty_value_is_a_fault_even_if_a_later_source_replaces_it() {
    let case = file("[log]\nlevel = \"loud\"").flag("log.level", "debug");
    assert_faults(&case, &["roomcast.toml:2: log.level: \"loud\""]);
}

#[test]
fn without_a_key_only_loopback_addresses_are_listened_on() {
    let open = "0.0.0.0:8000 can be reached from other machines, but there is no key to check tokens with: set \
                auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET";
    assert_faults(&variable("ROOMCAST_LISTEN", "0.0.0.0:8000"), &[&format!("ROOMCAST_LISTEN: listen: {open}")]);
    assert_faults(&variable("ROOMCAST_LISTEN", "[::]:8000"), &["listen: [::]:8000 can be reached"]);
    let internal = variable("ROOMCAST_INTERNAL_LISTEN", "0.0.0.0:9000");
    assert_faults(&internal, &["ROOMCAST_INTERNAL_LISTEN: internal_listen: "]);
    variable("ROOMCAST_LISTEN", "127.0.0.2:8000").load();
    variable("ROOMCAST_LISTEN", "[::1]:8000").load();
    variable("ROOMCAST_LISTEN", "0.0.0.0:8000").variable("ROOMCAST_AUTH_HMAC_SECRET", SECRET).load();
    // A key that cannot be read is one fault, not two.
    let case =
        variable("ROOMCAST_LISTEN", "0.0.0.0:8000").variable("ROOMCAST_AUTH_HMAC_SECRET_FILE", "/does/not/exist");
    assert_faults(&case, &["cannot read that file"]);
}

#[test]
fn insecure_is_for_loopback_only_and_is_said_loudly() {
    let loaded = flag("client.insecure", "true").load();
    assert!(!loaded.development);
    assert!(loaded.warnings[0].contains("client.insecure"), "{:?}", loaded.warnings);
    let case = variable("ROOMCAST_AUTH_HMAC_SECRET", SECRET).flag("client.insecure", "true").flag("listen", ":8000");
    assert_faults(&case, &["--set: listen: 0.0.0.0:8000 can be reached from other machines, and client.insecure"]);
}

#[test]
fn values_that_contradict_each_other_are_faults() {
    for (path, value, expected) in [
        ("client.ping_interval", "50d", "client.ping_interval: must be 49d at most"),
        ("client.expired_close_delay", "50d", "client.expired_close_delay: must be 49d at most"),
        ("client.pong_timeout", "25s", "client.pong_timeout: must be shorter than client.ping_interval"),
        ("client.ping_interval", "8s", "client.pong_timeout: must be shorter than client.ping_interval"),
        ("client.pong_timeout", "0s", "must be more than 0"),
        ("websocket.message_size_limit", "0", "websocket.message_size_limit: must be more than 0"),
        ("channel.max_length", "0", "must be more than 0"),
        ("client.channel_limit", "0", "must be more than 0"),
        ("client.pending_commands", "0", "client.pending_commands: must be more than 0"),
        ("client.pending_commands", "1025", "client.pending_commands: 1025 is too many: write 1024 or fewer"),
        ("redis.io_timeout", "0s", "must be more than 0"),
        ("redis.gathering_pause", "101ms", "redis.gathering_pause: must be 100ms at most"),
        ("redis.prefix", "a b", "must not contain blanks"),
        ("shutdown.timeout", "34s", "must be at least a second longer than shutdown.delay and shutdown.drain together"),
        ("shutdown.drain", "1h", "shutdown.timeout: must be at least"),
        ("shutdown.drain", "365d", "shutdown.timeout: must be at least"),
    ] {
        assert_faults(&flag(path, value), &[expected]);
    }
    assert!(flag("client.ping_interval", "0s").load().settings.client.ping_interval.is_zero());
    assert_eq!(flag("client.pending_commands", "1024").load().settings.client.pending_commands, 1024);
}

#[test]
fn what_may_be_a_mistake_is_a_warning() {
    for (path, value, expected) in [
        ("auth.hmac_secret", "short", "auth.hmac_secret has 5 bytes; with less than 32"),
        ("redis.url", "redis://localhost", "other nodes will not accept the tokens of this one"),
        ("websocket.message_size_limit", "2MB", "above client.queue_max_size"),
        ("client.ping_interval", "8500ms", "whole seconds"),
    ] {
        let warnings = flag(path, value).load().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(expected), "{warnings:?}");
    }
}

#[test]
fn further_checks_are_told_with_the_source_of_the_setting() {
    let case = file("node_name = \"x\"");
    let check: config::Check = |settings| vec![("node_name".to_owned(), format!("{} is taken", settings.node_name))];
    let faults = config::load(&case.sources, &[check]).map(|_| ()).expect_err("the check finds a fault");
    assert!(faults.to_string().ends_with("roomcast.toml:1: node_name: x is taken"), "{faults}");
}

#[test]
fn secrets_are_never_printed() {
    let case = variable("ROOMCAST_AUTH_HMAC_SECRET", "hidden-one")
        .variable("ROOMCAST_AUTH_HMAC_PREVIOUS_SECRET", "hidden-two")
        .variable("ROOMCAST_API_KEY", "hidden-three")
        .variable("ROOMCAST_REDIS_URL", "redis://user:hidden-four@redis.example:6380/2");
    let loaded = case.load();
    let printed = format!("{loaded:?} {} {:#?}", loaded.listing(), loaded.settings);
    assert!(!printed.contains("hidden"), "{printed}");
    assert!(loaded.listing().contains("redis://user:***@redis.example:6380/2"));
    let url = loaded.settings.redis.url.unwrap();
    assert_eq!(url.reveal(), "redis://user:hidden-four@redis.example:6380/2");
    let secret = loaded.settings.api.key.unwrap();
    assert_eq!(format!("{secret} {secret:?} {url}"), "*** *** redis://user:***@redis.example:6380/2");
    for bad in ["redis://:hidden@host:port", "http://:hidden@host"] {
        let faults = variable("ROOMCAST_REDIS_URL", bad).faults();
        assert!(!faults[0].contains("hidden"), "{faults:?}");
    }
    let loaded = variable("ROOMCAST_REDIS_URL", "redis+unix:///run/redis.sock?db=1&pass=hidden").load();
    assert!(loaded.listing().contains("redis+unix:///run/redis.sock?db=1&pass=***"), "{}", loaded.listing());
}

#[test]
fn words_are_read_as_choices() {
    let loaded = flag("log.level", "trace").flag("log.format", "json").load();
    assert_eq!((loaded.settings.log.level, loaded.settings.log.format), (LogLevel::Trace, LogFormat::Json));
}

#[test]
fn the_settings_in_the_page_on_tokens_are_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/TOKENS.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let case = Case::new().content("tenants", SECRET);
    let secret = case.folder.path().join("tenants").display().to_string();
    let text: String = blocks.map(|block| block.replace("/run/secrets/tenants", &secret) + "\n").collect();
    let loaded = case.file(&text).load();
    assert_eq!(loaded.settings.auth.issuers.len(), 2);
    assert_eq!(loaded.settings.auth.jwks_url.as_ref().unwrap().reveal(), "https://idp.example/.well-known/jwks.json");
}

#[test]
fn two_nodes_of_one_host_have_different_names() {
    let names: BTreeSet<_> = (0..8).map(|_| Case::new().load().settings.node_name).collect();
    assert!(names.len() > 1, "{names:?}");
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let (_, rest) = readme.split_once("<!-- settings -->\n").expect("the marker of the table is there");
    let (table, _) = rest.split_once("<!-- /settings -->").expect("the marker of the table's end is there");
    let expected = config::markdown_table();
    assert_eq!(table.trim(), expected.trim(), "replace the table by the output of `roomcast check-config --markdown`");
}
