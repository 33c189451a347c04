//! Texts of flags that name places and moments: URLs, addresses, commands. Knows no plan.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::Path,
};

use crate::{plan::Target, scenario::At, units};

/// Takes a URL apart and resolves its host.
pub(super) fn target(url: &str) -> Result<Target, String> {
    target_of(url, "ws", "--url")
}

/// The same for the server API.
pub(super) fn api(url: &str) -> Result<Target, String> {
    target_of(url, "http", "--api")
}

fn target_of(url: &str, scheme: &str, flag: &str) -> Result<Target, String> {
    if url.starts_with(&format!("{scheme}s://")) {
        return Err(format!(
            "{flag} {url}: TLS is not spoken here; point at the server behind the balancer, with {scheme}://"
        ));
    }
    let Some(rest) = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) else {
        return Err(format!("{flag} {url}: it has to begin with {scheme}://"));
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let address = resolve(host).map_err(|error| format!("{flag} {url}: {error}"))?;
    Ok(Target { address, host: host.to_owned(), path })
}

/// A secret, given as it is or in a file, or none.
pub(super) fn secret(plain: Option<&str>, file: Option<&Path>, flag: &str) -> Result<Option<String>, String> {
    let Some(file) = file else { return Ok(plain.map(str::to_owned)) };
    match fs::read_to_string(file) {
        Ok(secret) => Ok(Some(secret.trim_end().to_owned())),
        Err(error) => Err(format!("{flag} {}: {error}", file.display())),
    }
}

/// A moment and what the shell is to do then: `30s=kill -TERM 4711`.
pub(super) fn at(text: &str) -> Result<At, String> {
    let fault = || format!("`{text}`: write a time and a command, such as `30s=kill -TERM 4711`");
    let (after, command) = text.split_once('=').ok_or_else(fault)?;
    Ok(At { after: units::duration(after.trim())?, command: command.trim().to_owned() })
}

fn resolve(host: &str) -> Result<SocketAddr, String> {
    let named_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if named_port { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = host.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the host has no address".into())
}

/// One address, or a range of IPv4 addresses.
pub(super) fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let fault = || format!("--source-ip {text}: write an address, or a range such as 127.0.0.2-127.0.0.9");
    let Some((first, last)) = text.split_once('-') else {
        return Ok(vec![text.parse().map_err(|_| fault())?]);
    };
    let bounds = |text: &str| text.trim().parse::<Ipv4Addr>().map(u32::from).map_err(|_| fault());
    let (first, last) = (bounds(first)?, bounds(last)?);
    if last < first || last - first > 0xffff {
        return Err(fault());
    }
    Ok((first..=last).map(|address| Ipv4Addr::from(address).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let one = target("ws://127.0.0.1:8000/connection/websocket?format=protobuf").expect("valid");
        assert_eq!((one.address.port(), one.host.as_str()), (8000, "127.0.0.1:8000"));
        assert_eq!(one.path, "/connection/websocket?format=protobuf");
        let bare = target("ws://127.0.0.1").expect("valid");
        assert_eq!((bare.address.port(), bare.path.as_str()), (80, "/"));
        assert!(target("wss://example.org/").expect_err("no TLS").contains("TLS"));
        assert!(target("http://example.org/").is_err());
    }

    #[test]
    fn sources_may_be_ranges() {
        assert_eq!(sources("127.0.0.2-127.0.0.4").map(|all| all.len()), Ok(3));
        assert_eq!(sources("::1").map(|all| all.len()), Ok(1));
        assert!(sources("127.0.0.4-127.0.0.2").is_err());
        assert!(sources("here").is_err());
    }

    #[test]
    fn commands_have_their_moment() {
        let one = at("1.5s=kill -9 7 && echo a=b").expect("valid");
        assert_eq!((one.after.as_millis(), one.command.as_str()), (1500, "kill -9 7 && echo a=b"));
        assert!(at("kill 7").is_err() && at("7=kill").is_err());
    }
}
