//! How a backend is asked: addresses, limits, and the headers that are passed on. Knows how all that is written and what has
//! to hold between it; no HTTP client.

use std::{fmt, time::Duration};

use roomcast_shared::protocol::code::{Disconnect, ErrorCode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

use super::{rooms::RoomRules, section::section, settings::Settings, value::Scalar};

/// What stands where a password or the value of a header would.
const MASK: &str = "***";

/// Headers that belong to one connection or to the body behind them, and the one that would have answers come compressed.
const NOT_PASSED_ON: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

section! {
    /// What a backend is asked over HTTP, and how.
    Hooks {
        /// Who a client is that connects without a token.
        connect: Hook,
        /// Whether a connection that expires may go on.
        refresh: Hook,
        /// Whether a client may enter a room; asked where the room's rules have `subscribe_hook`.
        subscribe: Hook,
        /// Whether a client may publish that in a room; asked where the room's rules have `publish_hook`.
        publish: Hook,
        /// Whether a subscription that expires may go on; asked where the room's rules have `sub_refresh_hook`.
        sub_refresh: Hook,
        /// What a client calls with `rpc`.
        rpc: Hook,
        /// Names of headers that are passed on as they were on the client's own request.
        headers: Vec<HeaderName>,
        /// Names of headers that are passed on from the `headers` of the `connect` command, where the client's request had
        /// none of that name. Any client can write anything there.
        emulated_headers: Vec<HeaderName>,
        /// Headers that every request has, `Name: value` each; those of the client go before.
        static_headers: Vec<StaticHeader>,
        /// Whether the backend is told the `meta` of the connection, which a token or the connect hook gave.
        include_connection_meta: bool = "false",
        /// Whether `data` goes to the backend as base64 in `b64data`, for payloads that are no JSON.
        binary_encoding: bool = "false",
        /// What the client is told for an HTTP status: `503: error 1503 TEXT`, `503: temporary 1503 TEXT` for an error after
        /// which it tries again, or `403: disconnect 4503 TEXT`. Any other status than 200 is error 100.
        status_transforms: Vec<StatusTransform>,
        /// Largest answer that is read.
        max_answer_size: usize = "1MB",
        /// How long an unused connection to the backend is kept, shorter than the backend itself does; 0s: not at all.
        keep_alive: Duration = "4s",
        /// Questions that are with the backend at a time, for each address; others wait, no longer than the hook's timeout.
        concurrency: u32 = "128",
        /// Failures of an address in a row, after which it is left alone; 0: never.
        breaker_failures: u32 = "5",
        /// How long it is left alone before one question tries it again.
        breaker_pause: Duration = "5s",
        /// Certificates (PEM) of authorities that may sign for the backend, beside the public ones.
        ca: Option<Authorities>,
    }
}

section! {
    /// One thing a backend is asked.
    Hook {
        /// Address that is asked: `http://` or `https://`, with user and password where the backend wants them. Unset: nobody
        /// is asked.
        url: Option<HookUrl>,
        /// How long the answer may take. Where `hooks.concurrency` is reached, waiting for a turn may take as long again.
        timeout: Duration = "1s",
    }
}

impl Hooks {
    /// The hooks by their names.
    fn by_name(&self) -> [(&'static str, &Hook); 6] {
        [
            ("connect", &self.connect),
            ("refresh", &self.refresh),
            ("subscribe", &self.subscribe),
            ("publish", &self.publish),
            ("sub_refresh", &self.sub_refresh),
            ("rpc", &self.rpc),
        ]
    }
}

/// What a room's rules say of one hook.
struct InRooms<'a> {
    name: &'static str,
    on: bool,
    own: &'a Option<HookUrl>,
    common: &'a Option<HookUrl>,
}

fn in_rooms<'a>(rules: &'a RoomRules, hooks: &'a Hooks) -> [InRooms<'a>; 3] {
    let RoomRules { subscribe_hook_url, publish_hook_url, sub_refresh_hook_url, .. } = rules;
    let of = |name, on, own, hook: &'a Hook| InRooms { name, on, own, common: &hook.url };
    [
        of("subscribe", rules.subscribe_hook, subscribe_hook_url, &hooks.subscribe),
        of("publish", rules.publish_hook, publish_hook_url, &hooks.publish),
        of("sub_refresh", rules.sub_refresh_hook, sub_refresh_hook_url, &hooks.sub_refresh),
    ]
}

/// The rules of rooms with the section they stand in.
fn sections(settings: &Settings) -> impl Iterator<Item = (String, &RoomRules)> {
    let namespaces = settings.namespaces.iter();
    let namespaces = namespaces.map(|namespace| (format!("namespaces.{}", namespace.name), &namespace.rules));
    namespaces.chain([("rooms".to_owned(), &settings.rooms)])
}

/// What has to hold between these settings: the path of a setting, and what is wrong with it.
pub(super) fn check(settings: &Settings) -> Vec<(String, String)> {
    let hooks = &settings.hooks;
    let timeouts = hooks.by_name().map(|(name, hook)| (format!("hooks.{name}.timeout"), hook.timeout.is_zero()));
    let others = [
        ("hooks.max_answer_size", hooks.max_answer_size == 0),
        ("hooks.concurrency", hooks.concurrency == 0),
        ("hooks.breaker_pause", hooks.breaker_pause.is_zero()),
    ];
    let zeros =
        timeouts.into_iter().chain(others.map(|(path, zero)| (path.to_owned(), zero))).filter(|(_, zero)| *zero);
    let mut found: Vec<_> = zeros.map(|(path, _)| (path, "must be more than 0".to_owned())).collect();
    for (section, rules) in sections(settings) {
        let hooks = in_rooms(rules, hooks);
        let nobody = hooks.iter().filter(|hook| hook.on && hook.own.is_none() && hook.common.is_none());
        found.extend(nobody.map(|InRooms { name, .. }| {
            let message = format!("nobody is there to ask: set hooks.{name}.url, or {section}.{name}_hook_url");
            (format!("{section}.{name}_hook"), message)
        }));
    }
    found
}

/// What the operator may have meant otherwise.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    for (section, rules) in sections(settings) {
        let hooks = in_rooms(rules, &settings.hooks);
        let unused = hooks.iter().filter(|hook| !hook.on && hook.own.is_some());
        found.extend(unused.map(|InRooms { name, .. }| {
            format!("{section}.{name}_hook_url is never asked, because {section}.{name}_hook is off")
        }));
    }
    found
}

/// Where a backend is asked. Printing it prints it without the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HookUrl(Url);

impl HookUrl {
    /// The whole URL, with the password, for the one place that asks.
    pub fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        // Only a URL without a host refuses a password or a query, and such a one is not taken in.
        if url.password().is_some() {
            let _ = url.set_password(Some(MASK));
        }
        if url.query().is_some() {
            url.set_query(Some(MASK));
        }
        url.fmt(formatter)
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Scalar for HookUrl {
    const KIND: &'static str = "URL";

    fn parse(text: &str) -> Result<Self, String> {
        // What the parser says is not repeated with the text: that may hold a password.
        let url = Url::parse(text.trim()).map_err(|error| format!("is not a URL ({error}): write {EXAMPLE}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("begins with {}://: write {EXAMPLE}", url.scheme()));
        }
        if url.fragment().is_some() {
            return Err("has a part behind #, which no server would see: take it out".to_owned());
        }
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

const EXAMPLE: &str = "http://backend:3000/connect or https://…";

/// Name of a header that is passed on, in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(http::HeaderName);

impl HeaderName {
    /// The name.
    pub fn get(&self) -> &http::HeaderName {
        &self.0
    }
}

impl Scalar for HeaderName {
    const KIND: &'static str = "list of header names";

    fn parse(text: &str) -> Result<Self, String> {
        let name = http::HeaderName::try_from(text.trim()).map_err(|_| format!("{text:?} is no name of a header"))?;
        let reserved = NOT_PASSED_ON.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-");
        if reserved {
            return Err(format!("{text:?} belongs to one connection or one body and cannot be passed on"));
        }
        Ok(Self(name))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A header with its value, which may be a secret and is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticHeader {
    name: HeaderName,
    value: http::HeaderValue,
}

impl StaticHeader {
    /// Name and value.
    pub fn get(&self) -> (&http::HeaderName, &http::HeaderValue) {
        (&self.name.0, &self.value)
    }
}

impl fmt::Debug for StaticHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.show())
    }
}

impl Scalar for StaticHeader {
    const KIND: &'static str = "list of headers, secret";

    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("has a header without a colon: write Name: value")?;
        let name = HeaderName::parse(name)?;
        let mut value = http::HeaderValue::from_str(value.trim())
            .map_err(|_| format!("has a value of {} with characters that no header may have", name.0))?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }

    fn show(&self) -> String {
        format!("{}: {MASK}", self.name.0)
    }
}

/// What the client is told where the backend answers with this HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusTransform {
    /// The status.
    pub status: u16,
    /// What it comes to.
    pub answer: StatusAnswer,
}

/// What an HTTP status comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusAnswer {
    /// The command is refused with this.
    Error(ErrorCode),
    /// The connection is closed with this.
    Disconnect(Disconnect),
}

impl Scalar for StatusTransform {
    const KIND: &'static str = "list of STATUS: error CODE TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        let usage =
            || format!("{text:?} is none of 503: error 1503 TEXT, 503: temporary 1503 TEXT, 403: disconnect 4503 TEXT");
        let (status, answer) = text.split_once(':').ok_or_else(usage)?;
        let status = status.trim().parse().ok().filter(|status| (100..600).contains(status) && *status != 200);
        let status = status.ok_or_else(|| format!("{text:?} begins with no HTTP status other than 200"))?;
        let mut words = answer.trim().splitn(3, ' ');
        let (Some(what), Some(code), Some(said)) = (words.next(), words.next(), words.next()) else {
            return Err(usage());
        };
        let said = said.trim().to_owned();
        let code = code.parse().map_err(|_| usage())?;
        let answer = match what {
            "error" | "temporary" => ErrorCode::custom(code, said, what == "temporary")
                .map(StatusAnswer::Error)
                .map_err(|error| error.to_string())?,
            "disconnect" => Disconnect::custom(u16::try_from(code).unwrap_or(u16::MAX), said)
                .map(StatusAnswer::Disconnect)
                .map_err(|error| error.to_string())?,
            _ => return Err(usage()),
        };
        Ok(Self { status, answer })
    }

    fn show(&self) -> String {
        match &self.answer {
            StatusAnswer::Error(error) => {
                let word = if error.temporary { "temporary" } else { "error" };
                format!("{}: {word} {} {}", self.status, error.code, error.message)
            }
            StatusAnswer::Disconnect(disconnect) => {
                format!("{}: disconnect {} {}", self.status, disconnect.code, disconnect.reason)
            }
        }
    }
}

/// Certificates of authorities. They are no secret, and too long to print.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.show())
    }
}

impl Scalar for Authorities {
    const KIND: &'static str = "certificates (PEM)";

    /// Where a file of variables knows no line breaks they are written `\n`.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\n", "\n");
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| "holds a certificate that cannot be read".to_owned())?;
        if certificates.is_empty() {
            return Err("holds no certificate: it begins with -----BEGIN CERTIFICATE-----. To name a file that holds \
                        it, add _file to the setting's name (_FILE to the variable's)"
                .to_owned());
        }
        let mut roots = rustls::RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
        }
        Ok(Self(certificates))
    }

    fn show(&self) -> String {
        format!("{} certificates", self.0.len())
    }
}
