//! Which web pages may connect: patterns of origins (RFC 6454) and how one is matched. Knows no requests.

use std::fmt;

use super::value::Scalar;

/// `*`, an origin such as `https://example.com:8443`, or one with a wildcard for subdomains, `https://*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(String);

impl OriginPattern {
    /// The pattern every origin matches.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Whether the value of an `Origin` header matches. Scheme and host are compared without regard to case. A wildcard
    /// stands for one or more whole labels, so that `https://*.example.com` matches neither `https://example.com` nor
    /// `https://badexample.com`.
    pub fn matches(&self, origin: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        match self.0.split_once("://*.") {
            None => self.0 == origin,
            Some((scheme, domain)) => origin
                .strip_prefix(scheme)
                .and_then(|rest| rest.strip_prefix("://"))
                .and_then(|host| host.strip_suffix(domain))
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty() && labels.bytes().all(is_host_byte)),
        }
    }
}

/// Letters, digits, hyphen and dot: what labels of a host consist of.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Scalar for OriginPattern {
    const KIND: &'static str = "list of origins";

    fn parse(text: &str) -> Result<Self, String> {
        let pattern = text.trim().to_ascii_lowercase();
        if pattern == "*" || pattern == "null" {
            return Ok(Self(pattern));
        }
        let fault = |what: &str| Err(format!("{text:?} {what}: write https://example.com, https://*.example.com or *"));
        let Some((scheme, host)) = pattern.split_once("://") else {
            return fault("has no scheme");
        };
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            return fault("has no valid scheme");
        }
        if host.contains(['/', '?', '#', '@']) {
            return fault("has more than scheme, host and port (a path, or a slash at the end)");
        }
        let host = host.strip_prefix("*.").unwrap_or(host);
        if host.is_empty() || host.contains('*') {
            return fault("is not an origin; a wildcard stands for whole subdomains, at the beginning");
        }
        Ok(Self(pattern))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
