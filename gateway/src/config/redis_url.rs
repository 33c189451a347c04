//! Where Redis is, as settings write it: one server, the master that sentinels know, or a cluster. What is wrong with a URL is
//! said without quoting it, because it may hold a password. Knows no connection.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// How a URL says it should be written.
const FORMS: &str = "write redis://user:password@host:6379/0, rediss://… for TLS, redis+unix:///path/to/socket, \
                     redis+sentinel://host:26379,host2:26379/service/0, or redis+cluster://host:6379,host2:6379. \
                     Characters such as @ or / in a password are written %40, %2F";

/// What a Redis URL leads to.
#[derive(Clone, Debug)]
pub enum RedisPlace {
    /// One server.
    Server(Box<ConnectionInfo>),
    /// The master of a service, which sentinels know.
    Sentinel {
        /// Where sentinels are, and as whom to speak to them.
        sentinels: Vec<ConnectionInfo>,
        /// What they call the master and its replicas.
        service: String,
        /// As whom to speak to the master, and which database to take.
        login: RedisConnectionInfo,
    },
    /// A cluster, of which some nodes are named.
    Cluster(Vec<ConnectionInfo>),
}

impl RedisPlace {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, to follow the name of a setting; it never quotes the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        match scheme {
            "redis+sentinel" => sentinel("redis", rest),
            "rediss+sentinel" => sentinel("rediss", rest),
            "redis+cluster" => cluster("redis", rest),
            "rediss+cluster" => cluster("rediss", rest),
            _ => server(url).map(|info| Self::Server(Box::new(info))),
        }
    }
}

fn server(url: &str) -> Result<ConnectionInfo, String> {
    match url.into_connection_info() {
        Ok(info) if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) => {
            Err("has #insecure, which would trust anybody: take it out".to_owned())
        }
        Ok(info) => Ok(info),
        Err(_) => Err(format!("is not a Redis URL: {FORMS}")),
    }
}

/// A URL with several hosts, taken apart.
struct Parts<'a> {
    login: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn new(rest: &'a str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err("names no host, or has a comma too many: write host:port,host2:port2".to_owned());
        }
        Ok(Self { login, hosts, path, query })
    }

    /// Each host as a server of its own, in this database.
    fn servers(&self, scheme: &str, login: &str, port: u16, db: &str) -> Result<Vec<ConnectionInfo>, String> {
        let at = if login.is_empty() { "" } else { "@" };
        let address = |host: &str| if has_port(host) { host.to_owned() } else { format!("{host}:{port}") };
        let urls = self.hosts.iter().map(|host| format!("{scheme}://{login}{at}{}/{db}", address(host)));
        urls.map(|url| server(&url)).collect()
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit(']').next().is_some_and(|after| after.contains(':'))
}

fn cluster(scheme: &str, rest: &str) -> Result<RedisPlace, String> {
    let parts = Parts::new(rest)?;
    if !parts.path.is_empty() || parts.query.is_some() {
        return Err("has something after its hosts, but a Redis Cluster has one database and no name: write \
                    redis+cluster://host:6379,host2:6379"
            .to_owned());
    }
    parts.servers(scheme, parts.login, 6379, "").map(RedisPlace::Cluster)
}

fn sentinel(scheme: &str, rest: &str) -> Result<RedisPlace, String> {
    let parts = Parts::new(rest)?;
    let (service, db) = parts.path.split_once('/').unwrap_or((parts.path, ""));
    if service.is_empty() {
        return Err("names no service: write redis+sentinel://host:26379,host2:26379/service, where service is what \
                    sentinels call the master"
            .to_owned());
    }
    // As whom to speak to sentinels is said apart: most have no password.
    let sentinel_login = sentinel_login(parts.query)?;
    let sentinels = parts.servers(scheme, &sentinel_login, 26379, "")?;
    let master = parts.servers(scheme, parts.login, 6379, db)?.swap_remove(0);
    Ok(RedisPlace::Sentinel { sentinels, service: service.to_owned(), login: master.redis_settings().clone() })
}

fn sentinel_login(query: Option<&str>) -> Result<String, String> {
    let (mut user, mut password) = ("", None);
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=') {
            Some(("sentinel_user", value)) => user = value,
            Some(("sentinel_password", value)) => password = Some(value),
            _ => return Err("has a parameter that is not sentinel_user or sentinel_password".to_owned()),
        }
    }
    Ok(password.map_or(String::new(), |password| format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::RedisPlace;

    fn addresses(url: &str) -> Vec<String> {
        let servers = match RedisPlace::parse(url) {
            Ok(RedisPlace::Server(server)) => vec![*server],
            Ok(RedisPlace::Sentinel { sentinels: servers, .. } | RedisPlace::Cluster(servers)) => servers,
            Err(error) => panic!("{url}: {error}"),
        };
        servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn hosts_are_told_with_their_ports() {
        assert_eq!(addresses("redis://a:1"), ["a:1"]);
        assert_eq!(addresses("redis+cluster://a,b:2, c:3"), ["a:6379", "b:2", "c:3"]);
        assert_eq!(addresses("redis+sentinel://u:p@a,[::1]:5/main/3"), ["a:26379", "::1:5"]);
    }

    #[test]
    fn logins_of_a_master_and_of_its_sentinels_are_told_apart() {
        let url = "redis+sentinel://u:p%40@a/main/3?sentinel_password=s";
        let Ok(RedisPlace::Sentinel { sentinels, service, login }) = RedisPlace::parse(url) else {
            panic!("a service")
        };
        assert_eq!((service.as_str(), login.db(), login.password()), ("main", 3, Some("p@")));
        assert_eq!(sentinels[0].redis_settings().password(), Some("s"));
        let Ok(RedisPlace::Cluster(nodes)) = RedisPlace::parse("rediss+cluster://:p@a,b") else { panic!("a cluster") };
        assert!(nodes.iter().all(|node| node.redis_settings().password() == Some("p")));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, message) in [
            ("redis+sentinel://:hunter2@a:1", "names no service"),
            ("redis+sentinel://:hunter2@a:1/", "names no service"),
            ("redis+sentinel://:hunter2@a:1/main/x", "is not a Redis URL"),
            ("redis+sentinel://:hunter2@a:1/main?sentinel=hunter2", "a parameter that is not"),
            ("redis+cluster://:hunter2@a:1,,b:2", "a comma too many"),
            ("redis+cluster://:hunter2@a:1/3", "one database"),
            ("redis+cluster://:hunter2@a:x", "is not a Redis URL"),
            ("rediss://:hunter2@a#insecure", "#insecure"),
            ("http://:hunter2@a", "is not a Redis URL"),
        ] {
            let said = RedisPlace::parse(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(said.contains(message) && !said.contains("hunter2"), "{url}: {said}");
        }
    }
}
