//! Which rules hold in a room, and what they mean there, for settings, names and users made up at random: nodes are asked, and
//! compared with a model that is written another way and knows nothing of their code.

mod common;

use std::fmt::Write;

use common::{Client, Gateway, SECRET, Value, gateway, json};
use jsonwebtoken::{EncodingKey, Header};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

/// The longest name there may be, so that some are longer.
const MAX_LENGTH: usize = 24;

/// A pattern, and the same as a question.
type Pattern = (&'static str, fn(&str) -> bool);

const PATTERNS: [Pattern; 4] = [
    ("^[a-c]+$", |rest| !rest.is_empty() && rest.chars().all(|letter| ('a'..='c').contains(&letter))),
    ("^.{0,4}$", |rest| rest.chars().count() < 5),
    ("b", |rest| rest.contains('b')),
    ("^é?a", |rest| rest.starts_with('a') || rest.starts_with("éa")),
];

const NAMESPACES: [&str; 4] = ["aa", "ab", "a.c", "bb"];

const USERS: [&str; 4] = ["", "a", "b", "ab"];

/// Rules as far as they say who may what.
#[derive(Clone, Debug, Default)]
struct Rules {
    /// Of `subscribe`, `publish`, `presence` and `history`: any client, subscribers, and clients without a user as well.
    verbs: [[bool; 3]; 4],
    user_limited: bool,
    pattern: Option<usize>,
    presence: bool,
    history: bool,
}

const VERBS: [&str; 4] = ["subscribe", "publish", "presence", "history"];

#[derive(Clone, Debug)]
struct Settings {
    /// Without any key a node is in development mode.
    development: bool,
    rooms: Rules,
    namespaces: Vec<(&'static str, Rules)>,
}

impl Rules {
    fn toml(&self) -> String {
        let mut text = String::new();
        for (verb, allowed) in VERBS.iter().zip(self.verbs) {
            for (whom, allowed) in ["client", "subscriber", "anonymous"].iter().zip(allowed) {
                if (*verb, *whom) != ("subscribe", "subscriber") {
                    let _ = writeln!(text, "allow_{verb}_for_{whom} = {allowed}");
                }
            }
        }
        let _ = writeln!(text, "allow_user_limited_channels = {}", self.user_limited);
        if let Some(pattern) = self.pattern {
            let _ = writeln!(text, "channel_regex = {:?}", PATTERNS[pattern].0);
        }
        let _ = writeln!(text, "presence = {}", self.presence);
        let size = u8::from(self.history);
        let _ = writeln!(text, "history_size = {size}\nhistory_ttl = \"60s\"");
        text
    }
}

/// What is not said in development mode is open; everywhere else it is closed.
fn open_rules() -> Rules {
    let everybody = [true, false, true];
    Rules { verbs: [everybody, everybody, [false; 3], [false; 3]], ..Rules::default() }
}

impl Settings {
    fn toml(&self) -> String {
        let mut text = String::new();
        if !self.development {
            text += &self.rooms.toml().lines().fold(String::new(), |text, line| text + "rooms." + line + "\n");
        }
        for (name, rules) in &self.namespaces {
            let _ = write!(text, "[[namespaces]]\nname = {name:?}\n{}", rules.toml());
        }
        text
    }

    /// A node with these settings, and the secret it checks tokens with.
    fn start(&self) -> (Gateway, String) {
        let text = format!("channel.max_length = {MAX_LENGTH}\n{}", self.toml());
        if !self.development {
            return (Gateway::start(&text), SECRET.to_owned());
        }
        let ports = "listen = \"127.0.0.1:0\"\ninternal_listen = \"127.0.0.1:0\"\nshutdown.drain = \"0s\"\n";
        let loaded = gateway::load_exactly(&format!("{ports}{text}"));
        assert!(loaded.development);
        let secret = loaded.settings.auth.hmac_secret.as_ref().expect("one is made up").reveal().to_owned();
        let running = roomcast::app::start(&loaded).expect("the node starts");
        (Gateway { clients: running.clients, internal: running.internal, running }, secret)
    }

    /// The rules of a room with what stands behind its namespace, read from the front letter by letter.
    fn rules<'a>(&self, room: &'a str) -> Option<(Rules, &'a str)> {
        let any = self.development && self.namespaces.is_empty();
        let mut namespace = String::new();
        for (place, letter) in room.char_indices() {
            match letter {
                '$' if place == 0 => {}
                ':' if namespace.is_empty() => break,
                ':' => {
                    let known = self.namespaces.iter().find(|(name, _)| *name == namespace);
                    let rules = known.map(|(_, rules)| rules.clone());
                    return rules.or_else(|| any.then(open_rules)).map(|rules| (rules, &room[place + 1..]));
                }
                letter => namespace.push(letter),
            }
        }
        Some((if any { open_rules() } else { self.rooms.clone() }, room))
    }

    /// What a client of this user is answered that is in the room, or not: 0, or an error.
    fn answer(&self, verb: usize, room: &str, user: &str, inside: bool) -> u64 {
        if room.len() > MAX_LENGTH {
            return 107;
        }
        let Some((rules, rest)) = self.rules(room) else { return 102 };
        let named_well = rules.pattern.map_or(room.is_ascii(), |pattern| PATTERNS[pattern].1(rest));
        if !named_well {
            return 107;
        }
        if (VERBS[verb] == "presence" && !rules.presence) || (VERBS[verb] == "history" && !rules.history) {
            return 108;
        }
        let [client, subscriber, anonymous] = rules.verbs[verb];
        let by_rules = (client || (subscriber && inside)) && (anonymous || !user.is_empty());
        let listed = room.rfind('#').map(|place| &room[place + 1..]);
        let allowed = match (VERBS[verb], listed) {
            ("subscribe", _) if room.starts_with('$') => false,
            ("subscribe", Some(users)) if rules.user_limited => {
                !user.is_empty() && users.split(',').any(|listed| listed == user)
            }
            _ => by_rules,
        };
        if allowed { 0 } else { 103 }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let allowed = || prop::array::uniform3(any::<bool>());
    (
        prop::array::uniform4(allowed()),
        any::<bool>(),
        prop::option::of(0..PATTERNS.len()),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.7),
    )
        .prop_map(|(mut verbs, user_limited, pattern, presence, history)| {
            verbs[0][1] = false;
            Rules { verbs, user_limited, pattern, presence, history }
        })
}

fn settings() -> impl Strategy<Value = Settings> {
    let namespaces = select(vec![0, 1, 2, 4]).prop_flat_map(|count| vec(rules(), count));
    (prop::bool::weighted(0.3), rules(), namespaces).prop_map(|(development, rooms, namespaces)| Settings {
        development,
        // Saying anything of them would be a setting, which development mode leaves alone.
        rooms: if development { Rules::default() } else { rooms },
        namespaces: NAMESPACES.into_iter().zip(namespaces).collect(),
    })
}

/// Names that look like something, and names of the same letters that look like nothing.
fn room() -> impl Strategy<Value = String> {
    let namespace = select(vec!["", "aa:", "ab:", "a.c:", "bb:", "a:", ":", "#a:", "$aa:"]);
    let users = select(vec!["", "#", "#a", "#a,b", "#b,ab", "#ab,", "#a#b"]);
    let like_one = (select(vec!["", "", "$", "$$"]), namespace, "[a-c]{0,5}", users);
    prop_oneof![
        4 => like_one.prop_map(|(private, namespace, name, users)| format!("{private}{namespace}{name}{users}")),
        2 => "[ab$:#,.é]{1,9}",
        1 => "[a-c]{22,27}",
    ]
    .prop_filter("an empty name is no command", |name| !name.is_empty())
}

#[test]
fn rooms_have_the_rules_of_the_model() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() });
    let cases = (settings(), vec((room(), select(USERS.to_vec())), 40..80));
    let result = runner.run(&cases, |(settings, rooms)| runtime.block_on(compare(&settings, &rooms)));
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn compare(settings: &Settings, rooms: &[(String, &str)]) -> Result<(), TestCaseError> {
    let (node, secret) = settings.start();
    let key = EncodingKey::from_secret(secret.as_bytes());
    let mut compared = Ok(());
    for user in USERS {
        let mut client = Client::open(node.clients).await;
        let token = jsonwebtoken::encode(&Header::default(), &json!({"sub": user}), &key).expect("it can be signed");
        let reply = client.ask(json!({"connect": {"token": token}})).await;
        assert!(reply["connect"].is_object(), "{reply}");
        for (room, _) in rooms.iter().filter(|(_, asking)| *asking == user) {
            compared = compared.and(compare_room(settings, &mut client, room, user).await);
        }
    }
    node.stop().await;
    compared
}

/// Asks everything from outside, then enters if that is allowed, and asks again.
async fn compare_room(settings: &Settings, client: &mut Client, room: &str, user: &str) -> Result<(), TestCaseError> {
    let mut inside = false;
    for verb in [1, 2, 3, 0, 1, 2, 3] {
        let request =
            if VERBS[verb] == "publish" { json!({"channel": room, "data": 1}) } else { json!({"channel": room}) };
        let mut command = json!({});
        command[VERBS[verb]] = request;
        let reply = client.ask(command).await;
        let code = reply["error"]["code"].as_u64().unwrap_or(0);
        let wanted = settings.answer(verb, room, user, inside);
        prop_assert_eq!(code, wanted, "{} in {:?} as {:?}, inside: {}", VERBS[verb], room, user, inside);
        inside |= VERBS[verb] == "subscribe" && code == 0;
    }
    if inside {
        let reply: Value = client.ask(json!({"unsubscribe": {"channel": room}})).await;
        assert_eq!(reply["unsubscribe"], json!({}));
    }
    Ok(())
}
