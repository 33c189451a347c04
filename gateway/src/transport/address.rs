//! Whom a connection comes from: the peer of the socket, or, behind trusted proxies, whom they name.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Duration, timeout},
};

/// The peer of the connection a request came on, put into the request by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Longest header of the PROXY protocol that is read: that of version 1, and of version 2 without long extensions.
const LONGEST_HEADER: usize = 536;

/// The first bytes of a PROXY header of version 2; version 1 begins with `PROXY `.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Address of the client of a request: the last one in `X-Forwarded-For` that is no trusted proxy, or the peer itself.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut client = peer;
    for name in named.iter().rev() {
        let Some(address) = parse(name) else { return client };
        client = address;
        if !is_trusted(address, trusted) {
            return address;
        }
    }
    client
}

/// Whether the address is that of a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

fn parse(name: &str) -> Option<IpAddr> {
    let name = name.trim_matches('"');
    let bracketed = || name.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok();
    let with_port = || name.parse::<SocketAddr>().ok().map(|address| address.ip());
    name.parse().ok().or_else(with_port).or_else(|| bracketed().map(IpAddr::from))
}

/// Takes a PROXY header off the beginning of a trusted proxy's connection, where it sent one, and gives the address it names.
///
/// # Errors
/// The header is malformed, longer than 536 bytes, or does not arrive within `patience`.
pub async fn proxied_peer(stream: &mut TcpStream, peer: IpAddr, patience: Duration) -> std::io::Result<IpAddr> {
    timeout(patience, read_proxy_header(stream, peer)).await?
}

async fn read_proxy_header(stream: &mut TcpStream, peer: IpAddr) -> std::io::Result<IpAddr> {
    let mut seen = 0;
    let mut buffer = [0; LONGEST_HEADER];
    loop {
        let length = stream.peek(&mut buffer).await?;
        let begun = &buffer[..length];
        if !may_be_header(begun) {
            return Ok(peer);
        }
        match header(begun) {
            Some(Ok((length, address))) => {
                stream.read_exact(&mut buffer[..length]).await?;
                return Ok(address.unwrap_or(peer));
            }
            Some(Err(error)) => return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, error)),
            None if length == LONGEST_HEADER || length == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
        if length == seen {
            // Peeking tells at once of what was seen already, so the rest is waited for in small steps.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen = length;
    }
}

fn may_be_header(begun: &[u8]) -> bool {
    let begins = |signature: &[u8]| {
        let length = begun.len().min(signature.len());
        begun[..length] == signature[..length]
    };
    begins(b"PROXY ") || begins(V2_SIGNATURE)
}

/// The length of a whole header and the address in it; `None` where more is to come.
fn header(bytes: &[u8]) -> Option<Result<(usize, Option<IpAddr>), String>> {
    let parsed = ppp::HeaderResult::parse(bytes);
    if parsed_is_incomplete(&parsed, bytes) {
        return None;
    }
    Some(match parsed {
        ppp::HeaderResult::V1(Ok(header)) => Ok((header.header.len(), v1_source(&header.addresses))),
        // LOCAL: the proxy speaks for itself, and the address in it means nothing.
        ppp::HeaderResult::V2(Ok(header)) if header.command == ppp::v2::Command::Local => Ok((header.len(), None)),
        ppp::HeaderResult::V2(Ok(header)) => Ok((header.len(), v2_source(&header.addresses))),
        ppp::HeaderResult::V1(Err(error)) => Err(format!("PROXY header: {error}")),
        ppp::HeaderResult::V2(Err(error)) => Err(format!("PROXY header: {error}")),
    })
}

fn parsed_is_incomplete(parsed: &ppp::HeaderResult<'_>, bytes: &[u8]) -> bool {
    use ppp::PartialResult;
    let line_open = bytes.starts_with(b"P") && !bytes.contains(&b'\n') && bytes.len() < 107;
    line_open || parsed.is_incomplete()
}

fn v1_source(addresses: &ppp::v1::Addresses) -> Option<IpAddr> {
    match addresses {
        ppp::v1::Addresses::Tcp4(pair) => Some(pair.source_address.into()),
        ppp::v1::Addresses::Tcp6(pair) => Some(pair.source_address.into()),
        ppp::v1::Addresses::Unknown => None,
    }
}

fn v2_source(addresses: &ppp::v2::Addresses) -> Option<IpAddr> {
    match addresses {
        ppp::v2::Addresses::IPv4(pair) => Some(pair.source_address.into()),
        ppp::v2::Addresses::IPv6(pair) => Some(pair.source_address.into()),
        ppp::v2::Addresses::Unix(_) | ppp::v2::Addresses::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(forwarded: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_last_address_that_is_no_proxy_counts() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let stranger: IpAddr = "192.0.2.9".parse().unwrap();
        let cases: [(IpAddr, &[&str], &str); 6] = [
            (stranger, &["198.51.100.1"], "192.0.2.9"),
            (proxy, &[], "10.0.0.1"),
            (proxy, &["198.51.100.1"], "198.51.100.1"),
            (proxy, &["203.0.113.5, 198.51.100.1, 10.2.3.4"], "198.51.100.1"),
            (proxy, &["203.0.113.5", "198.51.100.1"], "198.51.100.1"),
            (proxy, &["nonsense, 10.7.7.7"], "10.7.7.7"),
        ];
        for (peer, forwarded, expected) in cases {
            let found = client_address(peer, &headers(forwarded), &trusted);
            assert_eq!(found.to_string(), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn addresses_in_other_spellings_are_understood() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let proxy: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let cases = [
            ("198.51.100.1:4711", "198.51.100.1"),
            ("\"198.51.100.1\"", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("\"[2001:db8::1]\"", "2001:db8::1"),
            ("198.51.100.1, fd00::5", "198.51.100.1"),
        ];
        for (forwarded, expected) in cases {
            let found = client_address(proxy, &headers(&[forwarded]), &trusted);
            assert_eq!(found.to_string(), expected, "{forwarded}");
        }
    }

    mod proxy_header {
        use proptest::prelude::*;
        use tokio::{io::AsyncWriteExt, net::TcpListener};

        use super::*;

        fn v2(address: [u8; 4]) -> Vec<u8> {
            let pair = [&address[..], &[127, 0, 0, 1], &[1, 2, 3, 4]].concat();
            [V2_SIGNATURE, &[0x21, 0x11, 0, 12], &pair].concat()
        }

        /// Both ends of a connection over the loopback interface.
        async fn pair() -> (TcpStream, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (client, listener.accept().await.unwrap().0)
        }

        const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

        #[tokio::test]
        async fn it_is_taken_off_and_nothing_behind_it() {
            let cases = [
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), "192.0.2.1"),
                (v2([192, 0, 2, 1]), "192.0.2.1"),
                (b"PROXY UNKNOWN any words\r\n".to_vec(), "127.0.0.1"),
                (Vec::new(), "127.0.0.1"),
            ];
            for (header, expected) in cases {
                // At once, and in two pieces at any place.
                for cut in 0..=header.len() {
                    let (mut client, mut server) = pair().await;
                    client.set_nodelay(true).unwrap();
                    let all = [&header[..], b"GET / HTTP/1.1"].concat();
                    client.write_all(&all[..cut]).await.unwrap();
                    let task = tokio::spawn(async move {
                        let found = proxied_peer(&mut server, PEER, Duration::from_secs(10)).await;
                        (found, server)
                    });
                    tokio::task::yield_now().await;
                    client.write_all(&all[cut..]).await.unwrap();
                    let (found, mut server) = task.await.unwrap();
                    assert_eq!(found.unwrap().to_string(), expected, "{} cut at {cut}", header.escape_ascii());
                    let mut rest = [0; 14];
                    server.read_exact(&mut rest).await.unwrap();
                    assert_eq!(&rest, b"GET / HTTP/1.1");
                }
            }
        }

        #[tokio::test]
        async fn one_that_never_ends_is_given_up() {
            let (client, mut server) = pair().await;
            drop(client);
            assert!(proxied_peer(&mut server, PEER, Duration::from_secs(10)).await.is_err(), "the end of the stream");
            for begun in [&b"PROX"[..], b"PROXY TCP4 192.0", V2_SIGNATURE, b""] {
                let (mut client, mut server) = pair().await;
                client.write_all(begun).await.unwrap();
                let waited = proxied_peer(&mut server, PEER, Duration::from_millis(30)).await.unwrap_err();
                assert_eq!(waited.kind(), std::io::ErrorKind::TimedOut, "{}", begun.escape_ascii());
            }
        }

        proptest! {
            #[test]
            fn any_bytes_are_a_header_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3_u8) {
                let begin = [&b""[..], b"PROXY ", V2_SIGNATURE][usize::from(kind)];
                let bytes = [begin, &bytes].concat();
                if let Some(Ok((length, _))) = header(&bytes) {
                    prop_assert!(may_be_header(&bytes) && length <= bytes.len());
                }
            }
        }
    }
}
