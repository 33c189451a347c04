//! The client a question is about, and which of its headers the backend is told. Knows headers, not where they came from.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use roomcast_shared::protocol::Encoding;
use uuid::Uuid;

use crate::config;

/// The client a question is about. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    /// Id of the session.
    pub client: Uuid,
    /// The user, empty for an anonymous one and while nobody knows.
    pub user: Arc<str>,
    /// Name of the transport, as the protocol spells it: `websocket`.
    pub transport: &'static str,
    /// How the client's messages are spelt.
    pub protocol: Encoding,
    /// Its headers that are passed on.
    pub headers: Option<Arc<PassedHeaders>>,
    /// What the backend or a token attached to the connection, JSON; empty for nothing.
    pub meta: Bytes,
}

impl Caller {
    /// How the protocol spells that of the client's messages.
    pub(super) fn protocol(&self) -> &'static str {
        match self.protocol {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        }
    }
}

/// The headers of one client that are passed on: which of the names in the settings, and the value.
pub struct PassedHeaders(Box<[Passed]>);

type Passed = (usize, Box<[u8]>);

/// Which headers are passed on, and what every request has.
pub(super) struct HeaderRules {
    /// Those of a client's request, then those of a `connect` command alone.
    names: Vec<HeaderName>,
    /// How many of them are looked for in the request.
    of_request: usize,
    /// Which of them are looked for in the command.
    of_command: Vec<usize>,
    base: HeaderMap,
}

impl HeaderRules {
    pub(super) fn new(hooks: &config::Hooks) -> Self {
        let mut names: Vec<_> = hooks.headers.iter().map(|name| name.get().clone()).collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        let of_request = names.len();
        for name in &hooks.emulated_headers {
            if !names.contains(name.get()) {
                names.push(name.get().clone());
            }
        }
        let of_command = |name: &HeaderName| hooks.emulated_headers.iter().any(|emulated| emulated.get() == name);
        let of_command = (0..names.len()).filter(|place| of_command(&names[*place])).collect();
        Self { names, of_request, of_command, base: base(hooks) }
    }

    pub(super) fn capture(&self, headers: &HeaderMap) -> Option<Arc<PassedHeaders>> {
        let names = self.names[..self.of_request].iter().enumerate();
        let values = names.flat_map(|(place, name)| {
            headers.get_all(name).iter().map(move |value| (place, Box::from(value.as_bytes())))
        });
        kept(values.collect())
    }

    pub(super) fn with_emulated(
        &self,
        captured: Option<Arc<PassedHeaders>>,
        given: &HashMap<String, String>,
    ) -> Option<Arc<PassedHeaders>> {
        let has = |place: usize| captured.iter().any(|headers| headers.0.iter().any(|(known, _)| *known == place));
        let missing = self.of_command.iter().filter(|place| !has(**place));
        let added: Vec<Passed> = missing.filter_map(|place| Some((*place, self.emulated(*place, given)?))).collect();
        if added.is_empty() {
            return captured;
        }
        let known = captured.iter().flat_map(|headers| headers.0.iter().cloned());
        kept(known.chain(added).collect())
    }

    /// The value a command gives for a name. Of two spellings of one name the first by the alphabet counts.
    fn emulated(&self, place: usize, given: &HashMap<String, String>) -> Option<Box<[u8]>> {
        let name = &self.names[place];
        let spelt = given.iter().filter(|(spelt, _)| spelt.eq_ignore_ascii_case(name.as_str()));
        let (_, value) = spelt.min_by_key(|(spelt, _)| spelt.as_str())?;
        if HeaderValue::from_str(value).is_err() {
            tracing::debug!(%name, "a header of a connect command is not passed on: no header may have such a value");
            return None;
        }
        Some(Box::from(value.as_bytes()))
    }

    /// The headers of one request: those of the settings, and those of the client before them.
    pub(super) fn of(&self, passed: Option<&PassedHeaders>) -> HeaderMap {
        let mut headers = self.base.clone();
        let passed = passed.map_or(&[][..], |passed| &passed.0);
        for (place, _) in passed {
            headers.remove(&self.names[*place]);
        }
        for (place, value) in passed {
            if let Ok(mut value) = HeaderValue::from_bytes(value) {
                value.set_sensitive(true);
                headers.append(&self.names[*place], value);
            }
        }
        headers
    }
}

fn kept(headers: Box<[Passed]>) -> Option<Arc<PassedHeaders>> {
    (!headers.is_empty()).then(|| Arc::new(PassedHeaders(headers)))
}

fn base(hooks: &config::Hooks) -> HeaderMap {
    let mut base = HeaderMap::new();
    for header in &hooks.static_headers {
        let (name, value) = header.get();
        base.append(name, value.clone());
    }
    base.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    base
}
