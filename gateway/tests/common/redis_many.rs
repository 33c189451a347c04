//! Redis-servers that belong together: a master with a replica and sentinels, and a cluster. Each is started for the test and
//! ends with the value. Knows nothing of the gateway.

#![allow(dead_code, reason = "each test file uses the part it needs")]

use std::{
    thread,
    time::{Duration, Instant},
};

use super::redis::{Port, RedisServer};

/// How long servers have to find each other, or a new master.
/// A sentinel whose clock jumped, or that was not run for two seconds, does nothing for the next thirty.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long a server of these may be silent before the others hold it for dead, in milliseconds.
const SILENCE: &str = "1500";

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a server says in an answer of lines, each `name:value`; nothing where it does not answer just now: sentinels cut
/// every connection of a replica when they make it the master.
fn info(server: &RedisServer, command: &[&str], name: &str) -> String {
    let answer = server.try_commands(&[command]).unwrap_or_default().concat().concat();
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn port(server: &RedisServer) -> String {
    server.port().expect("over TCP").to_string()
}

/// A master and a replica, with three sentinels that watch them under the name `main`.
pub(crate) struct RedisService {
    pub(crate) servers: [RedisServer; 2],
    pub(crate) sentinels: [RedisServer; 3],
}

impl RedisService {
    pub(crate) fn start() -> Self {
        let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port(&master)]);
        until("the replica", || info(&replica, &["INFO", "replication"], "master_link_status") == "up");
        let lines = format!(
            "sentinel monitor main 127.0.0.1 {} 2\nsentinel down-after-milliseconds main {SILENCE}\n\
             sentinel failover-timeout main 5000\n",
            port(&master)
        );
        let sentinels = [(); 3].map(|()| RedisServer::start_sentinel(&lines));
        for sentinel in &sentinels {
            until("the sentinels", || {
                let usable = sentinel.command(&["SENTINEL", "CKQUORUM", "main"]).concat();
                usable.contains("3 usable") && !sentinel.command(&["SENTINEL", "REPLICAS", "main"]).is_empty()
            });
        }
        Self { servers: [master, replica], sentinels }
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", port(sentinel))).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// The one that the sentinels name.
    pub(crate) fn master(&self) -> usize {
        let named = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
        self.servers.iter().position(|server| port(server) == named[1]).expect("one of ours")
    }

    /// Waits until that server is the master, for its own part and for every sentinel.
    pub(crate) fn await_master(&self, place: usize) {
        until("the new master", || {
            let server = &self.servers[place];
            let name = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
            info(server, &["INFO", "replication"], "role") == "master"
                && self.sentinels.iter().all(|sentinel| sentinel.command(&name)[1] == port(server))
        });
    }
}

/// A cluster: the masters first, each with an even part of the slots, then one replica of each, where there are any.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
    ids: Vec<String>,
    masters: usize,
    /// Where the nodes speak with each other.
    _buses: Vec<Port>,
}

impl RedisCluster {
    pub(crate) fn start(masters: usize, with_replicas: bool) -> Self {
        let count = if with_replicas { 2 * masters } else { masters };
        let buses: Vec<_> = (0..count).map(|_| Port::reserve()).collect();
        let nodes: Vec<_> = buses.iter().map(node).collect();
        let ids: Vec<_> = nodes.iter().map(|node| node.command(&["CLUSTER", "MYID"]).concat()).collect();
        for (place, node) in nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
            if place < masters {
                let (first, end) = (place * 16_384 / masters, (place + 1) * 16_384 / masters);
                node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            }
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port(node), &buses[place].number().to_string()]);
        }
        let cluster = Self { nodes, ids, masters, _buses: buses };
        cluster.until_everywhere("every node is known", "cluster_known_nodes", &count.to_string());
        for place in masters..count {
            cluster.nodes[place].command(&["CLUSTER", "REPLICATE", &cluster.ids[place - masters]]);
        }
        cluster.until_everywhere("every slot is served", "cluster_state", "ok");
        for replica in &cluster.nodes[masters..] {
            until("the replicas", || info(replica, &["INFO", "replication"], "master_link_status") == "up");
        }
        // Until every master knows of a replica, it is not one that may follow.
        let lines =
            || cluster.nodes.iter().map(|node| node.command(&["CLUSTER", "NODES"]).concat()).collect::<Vec<_>>();
        until("all know the replicas", || {
            lines().iter().all(|nodes| nodes.matches("slave").count() == count - masters)
        });
        cluster
    }

    fn until_everywhere(&self, what: &str, name: &str, value: &str) {
        until(what, || self.nodes.iter().all(|node| info(node, &["CLUSTER", "INFO"], name) == value));
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", port(node))).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Those that were masters at the start.
    pub(crate) fn masters(&self) -> &[RedisServer] {
        &self.nodes[..self.masters]
    }

    /// The slot of a name.
    pub(crate) fn slot(&self, name: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", name]).concat().parse().expect("a slot")
    }

    /// Which of the masters of the start owns a slot, where none has been moved.
    pub(crate) fn first_owner(&self, slot: u16) -> usize {
        (0..self.masters).rposition(|place| place * 16_384 / self.masters <= usize::from(slot)).expect("place 0")
    }

    /// Says where a slot is about to go; its keys stay.
    pub(crate) fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.nodes[to].command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
    }

    /// Moves the keys of a slot.
    pub(crate) fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, to_port) = (slot.to_string(), port(&self.nodes[to]));
        loop {
            let keys = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, "50"]);
            if keys.is_empty() {
                return;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &to_port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let moved = self.nodes[from].command(&words).concat();
            assert!(matches!(&*moved, "OK" | "NOKEY"), "{moved}");
        }
    }

    /// Moves what is left of the keys of a slot, and then the slot.
    pub(crate) fn end_move(&self, slot: u16, from: usize, to: usize) {
        self.move_keys(slot, from, to);
        for place in [to, from] {
            let slot = slot.to_string();
            let set = self.nodes[place].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]).concat();
            assert_eq!(set, "OK");
        }
    }

    /// Gives all slots of a master to another at once; there must be no key in them.
    pub(crate) fn give_all(&self, from: usize, to: usize) {
        self.nodes[to].command(&["CLUSTER", "BUMPEPOCH"]);
        let slots: Vec<_> = (0..16_384).filter(|slot| self.first_owner(*slot) == from).map(|s| s.to_string()).collect();
        let set: Vec<_> = slots.iter().map(|slot| ["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[to]]).collect();
        let set: Vec<&[&str]> = set.iter().map(<[&str; 5]>::as_slice).collect();
        assert!(self.nodes[to].commands(&set).iter().all(|answer| answer == &["OK"]));
        // The others hear of it anyway, and the one without slots becomes a replica then, which is told nothing.
        for place in (0..self.masters).filter(|place| *place != to) {
            self.nodes[place].commands(&set);
        }
    }

    /// Moves a slot with its keys.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.end_move(slot, from, to);
    }

    /// Waits until the replica of a master is a master itself, and all that live agree on it.
    pub(crate) fn await_successor(&self, master: usize) {
        let successor = &self.nodes[self.masters + master];
        until("the successor", || info(successor, &["INFO", "replication"], "role") == "master");
        until("every slot is served", || info(successor, &["CLUSTER", "INFO"], "cluster_state") == "ok");
    }

    /// The replica that this master had at the start.
    pub(crate) fn replica_of(&self, master: usize) -> &RedisServer {
        &self.nodes[self.masters + master]
    }
}

fn node(bus: &Port) -> RedisServer {
    RedisServer::start_with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus.number().to_string(),
        "--cluster-node-timeout",
        SILENCE,
        "--repl-diskless-sync-delay",
        "0",
        "--repl-ping-replica-period",
        "1",
    ])
}
