//! Values that must not be seen: they are read like any text and never print. What is shown of them is a mask, or the part
//! that is no secret.

use std::fmt;

use super::{
    redis_url::RedisPlace,
    value::{Raw, Scalar, Value},
};

/// What stands where a secret would.
const MASK: &str = "***";

/// A secret text. Printing it, in whatever way, prints a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a text that must not be seen from here on.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that uses it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl Scalar for Secret {
    const KIND: &'static str = "secret";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn show(&self) -> String {
        MASK.to_owned()
    }
}

/// Where Redis is. Printing it prints it without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Secret);

impl RedisUrl {
    /// The whole URL, with the password, for the one place that connects.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// Whether it leads to a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(RedisPlace::parse(self.reveal()), Ok(RedisPlace::Cluster(_)))
    }

    /// The URL with its password masked: between the user's colon and the host's `@`, and in a query `pass=`.
    fn masked(&self) -> String {
        let url = self.reveal();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let rest = match rest.rsplit_once('@') {
            Some((login, host)) => format!("{}:{MASK}@{host}", login.split(':').next().unwrap_or_default()),
            None => rest.to_owned(),
        };
        let hide = |pair: &str| match pair.split_once('=') {
            Some((name @ ("pass" | "password" | "sentinel_password"), _)) => format!("{name}={MASK}"),
            _ => pair.to_owned(),
        };
        let query = query.map(|query| format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&")));
        format!("{scheme}://{rest}{}", query.unwrap_or_default())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl Scalar for RedisUrl {
    const KIND: &'static str = "URL, secret";

    fn parse(text: &str) -> Result<Self, String> {
        RedisPlace::parse(text).map(|_| Self(Secret::new(text)))
    }

    fn show(&self) -> String {
        self.masked()
    }
}

/// Several Redis, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisUrls(pub Vec<RedisUrl>);

impl Value for RedisUrls {
    fn assign(&mut self, raw: &Raw) -> Result<(), String> {
        let mut urls = Vec::new();
        match raw {
            Raw::List(items) => {
                for item in items {
                    let mut url = None::<RedisUrl>;
                    url.assign(item)?;
                    urls.extend(url);
                }
            }
            Raw::Text(text) => {
                urls = split(text).iter().map(|url| RedisUrl::parse(url)).collect::<Result<_, _>>()?;
            }
            Raw::Bare(_) => return Err("is not a list: write [\"…\", \"…\"]".to_owned()),
        }
        self.0 = urls;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        let urls: Vec<_> = self.0.iter().map(Scalar::show).collect();
        Some(urls.join(", ")).filter(|_| !urls.is_empty())
    }

    fn kind(&self) -> &'static str {
        "list of URLs, secret"
    }
}

/// The URLs of a text with commas between them, where a URL may itself have commas between hosts.
fn split(text: &str) -> Vec<String> {
    let mut urls = Vec::<String>::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match urls.last_mut() {
            Some(url) if !part.contains("://") => url.extend([",", part]),
            _ => urls.push(part.to_owned()),
        }
    }
    urls
}

/// A public key in PEM. It is no secret, and it is too long to print.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Box<str>);

impl Pem {
    /// The text from `-----BEGIN` on.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Scalar::show(self))
    }
}

impl Scalar for Pem {
    const KIND: &'static str = "PEM";

    /// Where a file of variables knows no line breaks they are written `\n`.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\n", "\n");
        if text.contains("PRIVATE KEY-----") {
            return Err("is a private key; the node needs, and should see, only the public one".to_owned());
        }
        if !text.trim_start().starts_with("-----BEGIN") {
            return Err("is not PEM text: it begins with -----BEGIN PUBLIC KEY-----. To name a file that holds it, \
                        add _file to the setting's name (_FILE to the variable's)"
                .to_owned());
        }
        Ok(Self(text.into()))
    }

    fn show(&self) -> String {
        format!("PEM of {} bytes", self.0.len())
    }
}
