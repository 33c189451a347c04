//! The commands of the binary as people and scripts run them: what they print, where, and their exit codes.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

#[path = "common/keys.rs"]
mod keys;

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
};

use keys::{pair, pem};
use roomcast::config;

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";
const SECRET_VARIABLE: (&str, &str) = ("ROOMCAST_AUTH_HMAC_SECRET", SECRET);

/// Exit code, standard output, standard error.
type Answer = (i32, String, String);

fn roomcast(environment: &[(&str, &str)], arguments: &[&str]) -> Answer {
    with_input(environment, arguments, "")
}

fn with_input(environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn assert_says(answer: &Answer, code: i32, out: &str, err: &str) {
    assert_eq!(answer.0, code, "{answer:?}");
    assert!(answer.1.contains(out), "{answer:?} should say {out:?}");
    assert!(answer.2.contains(err), "{answer:?} should say {err:?}");
}

#[test]
fn a_token_is_all_that_is_printed_and_the_node_accepts_it() {
    let made = roomcast(
        &[SECRET_VARIABLE],
        &["token", "--user", "42", "--ttl", "1h", "--room", "news", "--room", "chat:1", "--info", r#"{"name":"Ann"}"#],
    );
    assert_says(&made, 0, "ey", "");
    assert_eq!(made.1.lines().count(), 1);
    assert_eq!(made.2, "");
    let checked = roomcast(&[SECRET_VARIABLE], &["check-token", made.1.trim()]);
    assert_says(&checked, 0, "accepted\n", "");
    let claims: serde_json::Value = serde_json::from_str(checked.1.trim_start_matches("accepted\n")).unwrap();
    assert_eq!(claims["sub"], "42");
    assert_eq!(claims["channels"], serde_json::json!(["news", "chat:1"]));
    assert_eq!(claims["info"], serde_json::json!({"name": "Ann"}));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    assert_says(&with_input(&[SECRET_VARIABLE], &["check-token", "-"], &made.1), 0, "accepted", "");
}

#[test]
fn a_token_carries_what_the_node_demands() {
    let demands = [SECRET_VARIABLE, ("ROOMCAST_AUTH_AUDIENCE", "chat"), ("ROOMCAST_AUTH_ISSUER", "shop")];
    let (_, token, _) = roomcast(&demands, &["token", "--user", "", "--ttl", "0s"]);
    let checked = roomcast(&demands, &["check-token", token.trim()]);
    assert_says(&checked, 0, "\"aud\": \"chat\"", "");
    assert!(!checked.1.contains("exp"), "{checked:?}");
}

/// The claims that `check-token` prints behind this first line.
fn claims(checked: &Answer, first: &str) -> serde_json::Value {
    let text = checked.1.strip_prefix(first).unwrap_or_else(|| panic!("{checked:?} should begin with {first:?}"));
    serde_json::from_str(text).unwrap()
}

const AS_SUBSCRIPTION: &str = "accepted as a subscription token\n";

#[test]
fn a_subscription_token_opens_one_room() {
    let room = ["token", "--user", "42", "--subscription", "$board"];
    let options = [
        "--client",
        "c1",
        "--allow",
        "pub, hst",
        "--data",
        "[1]",
        "--info",
        "{}",
        "--jti",
        "t1",
        "--ttl",
        "0s",
        "--override",
        r#"{"presence":{"value":true}}"#,
    ];
    let made = roomcast(&[SECRET_VARIABLE], &[&room[..], &options].concat());
    assert_says(&made, 0, "ey", "");
    let checked = roomcast(&[SECRET_VARIABLE], &["check-token", made.1.trim()]);
    let mut told = claims(&checked, AS_SUBSCRIPTION);
    told.as_object_mut().unwrap().remove("iat").unwrap();
    let expected = serde_json::json!({
        "sub": "42", "jti": "t1", "channel": "$board", "client": "c1", "allow": ["pub", "hst"], "info": {}, "data": [1],
        "override": {"presence": {"value": true}},
    });
    assert_eq!(told, expected);
    for (wrong, said) in [
        (&["--room", "lobby"][..], "cannot be used with"),
        (&["--caps", "[]"], "cannot be used with"),
        (&["--allow", "publish"], "is none of sub, pub, prs and hst"),
        (&["--override", r#"{"presence":true}"#], "invalid type"),
        (&["--data", "{"], "is not JSON"),
    ] {
        assert_says(&roomcast(&[SECRET_VARIABLE], &[&room[..], wrong].concat()), 64, "", said);
    }
    for alone in [&["--client", "c1"][..], &["--data", "1"], &["--allow", "pub"], &["--override", "{}"]] {
        let answer = roomcast(&[SECRET_VARIABLE], &[&["token", "--user", "42"], alone].concat());
        assert_says(&answer, 64, "", "--subscription <ROOM>");
    }
}

#[test]
fn subscription_tokens_are_made_and_checked_with_keys_of_their_own() {
    let own = [
        SECRET_VARIABLE,
        ("ROOMCAST_AUTH_SUBSCRIPTION_TOKEN_HMAC_SECRET", "another-secret-of-more-than-32-bytes"),
        ("ROOMCAST_AUTH_SUBSCRIPTION_TOKEN_AUDIENCE", "rooms"),
    ];
    let room = ["token", "--user", "42", "--subscription", "$board"];
    let made = roomcast(&own, &room).1;
    assert_eq!(claims(&roomcast(&own, &["check-token", made.trim()]), AS_SUBSCRIPTION)["aud"], "rooms");
    let other = roomcast(&[SECRET_VARIABLE], &room).1;
    assert_says(&roomcast(&own, &["check-token", other.trim()]), 1, "", "refused: bad signature");
    let connection = roomcast(&own, &["token", "--user", "42"]).1;
    assert_says(&roomcast(&own, &["check-token", connection.trim()]), 0, "accepted\n", "");
    let (_, public) = pair("p256");
    let without = roomcast(&[("ROOMCAST_AUTH_SUBSCRIPTION_TOKEN_PUBLIC_KEY", &public)], &room);
    assert_says(
        &without,
        64,
        "",
        "set auth.subscription_token.hmac_secret (ROOMCAST_AUTH_SUBSCRIPTION_TOKEN_HMAC_SECRET)",
    );
}

#[test]
fn capabilities_users_and_issuers_are_put_into_a_token_as_the_node_reads_them() {
    let caps = r#"[{"channels":["news:*"],"match":"wildcard","allow":["sub"]}]"#;
    let environment = [SECRET_VARIABLE, ("ROOMCAST_AUTH_USER_ID_CLAIM", "uid"), ("ROOMCAST_AUTH_AUDIENCE_REGEX", "a.")];
    let arguments = ["token", "--user", "42", "--caps", caps, "--audience", "ab", "--issuer", "me"];
    let made = roomcast(&environment, &arguments).1;
    let told = claims(&roomcast(&environment, &["check-token", made.trim()]), "accepted\n");
    assert_eq!((&told["sub"], &told["aud"], &told["iss"]), (&"42".into(), &"ab".into(), &"me".into()));
    assert_eq!(told["caps"], serde_json::from_str::<serde_json::Value>(caps).unwrap());
    let wrong =
        roomcast(&[SECRET_VARIABLE], &["token", "--user", "42", "--caps", r#"[{"channels":["a"],"allow":["x"]}]"#]);
    assert_says(&wrong, 64, "", "is none of sub, pub, prs and hst");
}

#[test]
fn check_token_fetches_keys_as_the_node_does() {
    let (private, _) = pair("ed25519");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, &private).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("k1".to_owned());
    let body = serde_json::json!({"keys": [jwk]}).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let (address, asked) = answering(answer.leak());
    let url = format!("http://{}/keys", address.replace("0.0.0.0", "127.0.0.1"));
    let made = roomcast(&[], &["token", "--user", "u1", "--private-key", file.to_str().unwrap(), "--kid", "k1"]).1;
    let environment = [("ROOMCAST_AUTH_JWKS_URL", url.as_str())];
    assert_says(&roomcast(&environment, &["check-token", made.trim()]), 0, "accepted\n", "");
    assert!(asked.join().unwrap().starts_with("GET /keys HTTP/1.1\r\n"));
    // Nobody listens there any more.
    let down = roomcast(&environment, &["check-token", made.trim()]);
    assert_says(&down, 1, "", &format!("roomcast: keys cannot be fetched: {url}: "));
    assert_says(&down, 1, "", "refused: the key that it names is not here yet");
}

#[test]
fn tokens_are_signed_with_private_keys() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, algorithms) in
        [("rsa", vec!["RS256", "ps512"]), ("p256", vec!["ES256"]), ("p384", vec!["ES384"]), ("ed25519", vec!["EdDSA"])]
    {
        let (private, public) = pair(kind);
        let file = folder.path().join(kind);
        std::fs::write(&file, private).unwrap();
        let environment = [("ROOMCAST_AUTH_PUBLIC_KEY", public.as_str())];
        for algorithm in algorithms {
            let key = ["token", "--user", "u1", "--private-key", file.to_str().unwrap(), "--alg", algorithm];
            let (code, token, error) = roomcast(&environment, &key);
            assert_eq!(code, 0, "{error}");
            assert_says(&roomcast(&environment, &["check-token", token.trim()]), 0, "accepted", "");
        }
    }
    let missing = roomcast(&[], &["token", "--user", "u1", "--private-key", "/does/not/exist"]);
    assert_says(&missing, 64, "", "cannot read the private key /does/not/exist: No such file");
    let file = folder.path().join("p256");
    let wrong = roomcast(&[], &["token", "-u", "u1", "--private-key", file.to_str().unwrap(), "--alg", "RS256"]);
    assert_says(&wrong, 64, "", "cannot be used with RS256; it is for ES256");
}

#[test]
fn a_token_needs_a_user_a_secret_and_sound_arguments() {
    assert_says(&roomcast(&[SECRET_VARIABLE], &["token"]), 64, "", "--user <USER>");
    assert_says(&roomcast(&[], &["token", "--user", "u1"]), 64, "", "set auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET)");
    let info = roomcast(&[SECRET_VARIABLE], &["token", "--user", "u1", "--info", "{name}"]);
    assert_says(&info, 64, "", "is not JSON");
    let ttl = roomcast(&[SECRET_VARIABLE], &["token", "--user", "u1", "--ttl", "60"]);
    assert_says(&ttl, 64, "", "has no unit: write 60s");
}

#[test]
fn check_token_names_the_claim_that_fails() {
    let other = [("ROOMCAST_AUTH_HMAC_SECRET", "another-secret-of-more-than-32-bytes")];
    let make = |environment: &[(&str, &str)], ttl: &str| {
        roomcast(environment, &["token", "--user", "u1", "--ttl", ttl]).1.trim().to_owned()
    };
    let (private, _) = pair("ed25519");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, private).unwrap();
    let unknown = roomcast(&[SECRET_VARIABLE], &["token", "-u", "u1", "--private-key", file.to_str().unwrap()]).1;
    let sign =
        |claims: serde_json::Value| roomcast::auth::Signer::from_secret(SECRET, None).unwrap().sign(&claims).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (token, reason) in [
        (sign(serde_json::json!({"exp": now - 185})), "refused: expired 3m "),
        (sign(serde_json::json!({"nbf": now + 7205})), "refused: not valid before 2h"),
        (make(&other, "1h"), "refused: bad signature"),
        (unknown, "refused: signed with an unknown key: this node has no key for EdDSA"),
        (sign(serde_json::json!({"channel": 5})), "refused: bad claim: claim `channel`"),
        ("a.b.c".to_owned(), "refused: malformed"),
    ] {
        assert_says(&roomcast(&[SECRET_VARIABLE], &["check-token", token.trim()]), 1, "", reason);
    }
    let strict = [SECRET_VARIABLE, ("ROOMCAST_AUTH_AUDIENCE", "chat")];
    let token = make(&[SECRET_VARIABLE], "1h");
    let reason = "refused: wrong audience (claim aud): wanted \"chat\", has none";
    assert_says(&roomcast(&strict, &["check-token", &token]), 1, "", reason);
    assert_says(&roomcast(&[], &["check-token", &token]), 64, "", "there is no key to check tokens with");
}

#[test]
fn check_config_shows_values_sources_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roomcast.toml");
    std::fs::write(&file, "[client]\nchannel_limit = 5\n[[namespaces]]\nname = \"chat\"\n").unwrap();
    let file = file.to_str().unwrap();
    let environment = [SECRET_VARIABLE, ("ROOMCAST_REDIS_URL", "redis://:hidden@localhost")];
    let answer =
        roomcast(&environment, &["check-config", "--config", file, "--listen", ":8001", "--set", "log.level=debug"]);
    assert_says(&answer, 0, "redis://:***@localhost", "");
    let line = |path: &str| {
        let line = answer.1.lines().find(|line| line.starts_with(&format!("{path} "))).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("client.channel_limit"), format!("client.channel_limit 5 {file}:2"));
    assert_eq!(line("listen"), "listen 0.0.0.0:8001 --listen");
    assert_eq!(line("log.level"), "log.level debug --set");
    assert_eq!(line("auth.hmac_secret"), "auth.hmac_secret *** ROOMCAST_AUTH_HMAC_SECRET");
    assert_eq!(line("redis.prefix"), "redis.prefix roomcast default");
    assert!(line("namespaces.chat.allow_publish_for_client").ends_with("false default"));
    assert!(!answer.1.contains("hidden") && !answer.1.contains(SECRET), "{answer:?}");
}

#[test]
fn faults_end_every_command_with_64() {
    let faulty = [("ROOMCAST_REDIS_ULR", "x"), ("ROOMCAST_API_KEY", "")];
    for command in [&["check-config"][..], &[], &["serve"], &["token", "--user", "u1"], &["check-token", "a.b.c"]] {
        let answer = roomcast(&faulty, command);
        assert_says(
            &answer,
            64,
            "",
            "roomcast: 2 faults in the settings:\n  ROOMCAST_REDIS_ULR: unknown setting; did you mean",
        );
        assert_says(&answer, 64, "", "\n  ROOMCAST_API_KEY: api.key: is empty");
    }
    assert_says(&roomcast(&faulty, &["health"]), 1, "", "ROOMCAST_REDIS_ULR: unknown setting");
    let certificate = pem("CERTIFICATE", b"x");
    let answer = roomcast(&[("ROOMCAST_AUTH_PUBLIC_KEY", &certificate)], &["check-config"]);
    assert_says(&answer, 64, "", "ROOMCAST_AUTH_PUBLIC_KEY: auth.public_key: is a certificate");
}

#[test]
fn usage_that_is_wrong_ends_with_64_and_a_hint() {
    assert_says(&roomcast(&[], &["--lisen", "x"]), 64, "", "--listen");
    assert_says(&roomcast(&[], &["chek-config"]), 64, "", "check-config");
    assert_says(&roomcast(&[], &["--set", "listen"]), 64, "", "write the name of a setting, = and its value");
}

#[test]
fn help_names_every_command_and_every_setting() {
    let (code, help, _) = roomcast(&[], &["--help"]);
    assert_eq!(code, 0);
    for command in ["token", "check-token", "check-config", "health"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        assert_eq!(roomcast(&[], &[command, "--help"]).0, 0);
    }
    let (_, table, _) = roomcast(&[], &["check-config", "--markdown"]);
    assert_eq!(table, config::markdown_table());
    for row in table.lines().skip(2) {
        for cell in row.split('|').skip(1).take(2).map(|cell| cell.trim().trim_matches('`')) {
            assert!(help.contains(cell), "{cell}");
        }
    }
    assert!(help.lines().all(|line| line.len() <= 160), "long lines in --help");
    assert_says(&roomcast(&[], &["--version"]), 0, env!("CARGO_PKG_VERSION"), "");
}

/// A node that gives this one answer to one request; what it was asked comes back.
fn answering(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (format!("0.0.0.0:{port}"), asked)
}

#[test]
fn health_asks_readyz_on_loopback() {
    let ready = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready";
    let unready = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\ndraining";
    for (answer, code, out, err) in [
        (ready, 0, "ready\n", ""),
        (unready, 1, "", "not ready: draining\n"),
        ("", 1, "", "no answer from http://127.0.0.1:"),
    ] {
        let (address, asked) = answering(answer);
        let health = roomcast(&[SECRET_VARIABLE, ("ROOMCAST_INTERNAL_LISTEN", &address)], &["health"]);
        assert_says(&health, code, out, err);
        assert!(asked.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
    }
}

#[test]
fn health_says_where_nobody_answers() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let health = roomcast(&[("ROOMCAST_INTERNAL_LISTEN", &free)], &["health"]);
    assert_says(&health, 1, "", &format!("no answer from http://{free}/readyz: Connection refused"));
    // A port chosen freely by the node cannot be known here.
    let health = roomcast(&[("ROOMCAST_INTERNAL_LISTEN", "127.0.0.1:0")], &["health"]);
    assert_says(&health, 1, "", "internal_listen");
}
