//! A full node that is drained behind the balancer with the file that is shipped: nobody loses anything, and the clients come
//! to the other nodes no faster than they are let go.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    common::{
        http,
        redis::{Port, RedisServer},
    },
    crowd::SETTLES,
    scene::{Own, Scene},
    stayers::Stayers,
};

const NODES: usize = 3;
/// A third of them is on the node that is drained.
const CLIENTS: usize = 1200;
const SETTINGS: Own = &[
    ("client.ping_interval", "25s"),
    ("client.pong_timeout", "8s"),
    ("shutdown.delay", "2s"),
    ("shutdown.drain", "4s"),
    ("shutdown.timeout", "20s"),
];
/// What `SETTINGS` come to, where a node has a third of the clients.
const PACE: f64 = 100.0;
/// How long a window is in which comings are counted.
const WINDOW: Duration = Duration::from_secs(2);

/// The balancer, which ends with the value.
struct Balancer {
    child: Child,
    clients: SocketAddr,
    metrics: SocketAddr,
    _ports: [Port; 2],
}

impl Balancer {
    fn start(scene: &Scene) -> Self {
        let ports = [(); 2].map(|()| Port::reserve());
        let [clients, metrics] = ports.each_ref().map(|port| SocketAddr::from(([127, 0, 0, 1], port.number())));
        // Debian puts it where the path of a plain user does not lead.
        let place = Path::new("/usr/sbin/haproxy");
        let mut command = Command::new(if place.exists() { place } else { Path::new("haproxy") });
        command
            .args(["-db", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy.cfg")])
            .env("BALANCER_BIND", clients.to_string())
            .env("BALANCER_METRICS_BIND", metrics.to_string())
            .env("BALANCER_MAXCONN", "4000");
        for node in 0..NODES {
            let address = scene.address(node);
            command.env(format!("GATEWAY_{}", node + 1), address.clients.to_string());
            command.env(format!("GATEWAY_{}_INTERNAL_PORT", node + 1), address.internal.port().to_string());
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("haproxy is installed: `make tools`"), clients, metrics, _ports: ports }
    }

    async fn until_up(&self) {
        let up = async {
            loop {
                if TcpStream::connect(self.metrics).await.is_ok() {
                    let (_, page) = http::request(self.metrics, "GET", "/metrics", &[], b"").await;
                    let is_up =
                        |line: &&str| line.starts_with("haproxy_server_status{") && line.contains("state=\"UP\"");
                    if page.lines().filter(is_up).filter(|line| line.ends_with(" 1")).count() == NODES {
                        return;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SETTLES, up).await.expect("the balancer sees the nodes");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_is_drained_at_a_pace_that_the_others_can_take() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let redis = RedisServer::start();
    let mut scene = Scene::nodes(&[redis.url(), redis.url(), redis.url()], SETTINGS);
    for node in 0..NODES {
        let internal = scene.address(node).internal;
        while http::request(internal, "GET", "/readyz", &[], b"").await.0 != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let balancer = Balancer::start(&scene);
    (0..NODES).for_each(|node| scene.reach(node, balancer.clients));
    balancer.until_up().await;
    scene.fill().await;
    let clients = Stayers::start(balancer.clients, CLIENTS, Duration::ZERO);
    clients.until_connected(CLIENTS).await;

    scene.end_node(0, "TERM");
    let recovered = scene.recover().await;
    clients.until_all_are_back().await;
    let (connected, ends) = clients.stop().await;
    let times = &connected[CLIENTS..];
    assert!(ends.len() > CLIENTS / 4, "{} left", ends.len());
    assert!(ends.iter().all(|end| end == "3001 shutdown"), "{ends:?}");
    let most = times.iter().map(|from| times.iter().filter(|at| *at >= from && **at - *from < WINDOW).count()).max();
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let rate = most.expect("some came") as f64 / WINDOW.as_secs_f64();
    println!("{} came back, {rate} a second at most", times.len());
    assert!(rate <= 1.2 * PACE, "{rate} came back in a second");
    let ledger = scene.finish("full node drained behind HAProxy", recovered).await;
    assert_eq!(ledger.counted_all("told that history is gone: another epoch"), 0);
    assert_eq!(ledger.counted_all("connections ended: not opened"), 0, "{}", ledger.tally());
}
