//! The real thing: nodes in processes of their own over a real store, and what befalls them. Knows no clients.

use std::{sync::Arc, time::Duration};

use tempfile::NamedTempFile;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep_until},
};

use crate::{
    common::{Process, redis::RedisServer},
    ledger::Ledger,
    nodes::{Address, KEY, Nodes},
    plan::Fault,
};

/// Nodes and their store.
pub(crate) struct World {
    pub(crate) nodes: Arc<Nodes>,
    redis: RedisServer,
    processes: Vec<Option<Process>>,
    settings: NamedTempFile,
    /// The store is neither down nor paused.
    answers: bool,
    /// What nodes logged that are no more.
    logs: Vec<String>,
}

impl World {
    /// So many nodes with these settings. The store has on disc whatever it answers, before it answers.
    pub(crate) fn start(nodes: usize, settings: &str) -> Self {
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a directory for temporary files");
        let settings = format!("redis.url = {:?}\napi.key = {KEY:?}\n{settings}", redis.url());
        std::fs::write(file.path(), settings).expect("it can be written");
        let processes = (0..nodes).map(|_| None).collect();
        let mut world =
            Self { nodes: Arc::default(), redis, processes, settings: file, answers: true, logs: Vec::new() };
        (0..nodes).for_each(|node| world.start_node(node));
        world
    }

    /// Carries out a plan, and leaves everything running.
    pub(crate) async fn suffer(&mut self, plan: &[(Duration, Fault)], ledger: &Ledger) {
        let begin = Instant::now();
        for (at, fault) in plan {
            sleep_until(begin + *at).await;
            if !ledger.faults().is_empty() {
                break;
            }
            match fault {
                Fault::CutLink(number) => block_in_place(|| self.cut_link(*number, ledger)),
                fault => {
                    ledger.count(&format!("{fault:?}"), 1);
                    block_in_place(|| self.befall(*fault));
                }
            }
        }
        block_in_place(|| self.heal());
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::KillNode(node) => self.end_node(node, "KILL"),
            Fault::StopNode(node) => self.end_node(node, "TERM"),
            Fault::StartNode(node) => self.start_node(node),
            Fault::KillStore => self.redis.kill(),
            Fault::StartStore => self.redis.restart(),
            Fault::StartStoreEmpty => {
                self.nodes.begin_loss();
                self.redis.restart_empty();
                self.nodes.end_loss();
            }
            Fault::PauseStore => self.redis.pause(),
            Fault::ResumeStore => self.redis.resume(),
            Fault::CutLink(_) => unreachable!("it is no matter of processes"),
        }
        self.answers = match fault {
            Fault::KillStore | Fault::PauseStore => false,
            Fault::StartStore | Fault::StartStoreEmpty | Fault::ResumeStore => true,
            _ => self.answers,
        };
    }

    /// Has the store close one of the connections it has; nothing while it does not answer.
    fn cut_link(&self, number: usize, ledger: &Ledger) {
        if !self.answers {
            return;
        }
        let list = self.redis.command(&["CLIENT", "LIST"]).concat();
        // Not the one that asks here.
        let links: Vec<_> = list.lines().filter(|line| !line.contains(" cmd=client")).collect();
        if links.is_empty() {
            return;
        }
        let link = links[number % links.len()];
        let id = link.split(' ').find_map(|field| field.strip_prefix("id=")).expect("each has one");
        if self.redis.command(&["CLIENT", "KILL", "ID", id]) == ["1"] {
            let kind = if link.contains(" sub=0 ") { "asks" } else { "hears" };
            ledger.count("links to the store cut", 1);
            ledger.count(&format!("links to the store cut: one that {kind}"), 1);
        }
    }

    /// Has the store close every connection over which nodes hear; they open others at once.
    pub(crate) fn deafen(&self) {
        self.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }

    fn start_node(&mut self, node: usize) {
        self.end_node(node, "KILL");
        let file = self.settings.path().to_str().expect("a path in UTF-8");
        let process = Process::start(&[("config", file), ("log.format", "json"), ("log.level", "info")]);
        self.nodes.set(node, Some(Address { clients: process.clients, internal: process.internal }));
        self.processes[node] = Some(process);
    }

    fn end_node(&mut self, node: usize, signal: &str) {
        let Some(mut process) = self.processes[node].take() else { return };
        process.signal(signal);
        // While it stops it is still there for those who know it.
        process.ended();
        self.nodes.set(node, None);
        self.logs.push(process.log());
    }

    /// Whatever is down is started again.
    fn heal(&mut self) {
        self.redis.resume_or_restart();
        for node in 0..self.processes.len() {
            if self.processes[node].is_none() {
                self.start_node(node);
            }
        }
    }

    /// What all nodes had to say that is more than information.
    pub(crate) fn complaints(&self) -> String {
        let running = self.processes.iter().flatten().map(Process::log);
        let all: Vec<_> = self.logs.iter().cloned().chain(running).collect();
        let lines = all.iter().flat_map(|log| log.lines());
        lines.filter(|line| !line.contains("\"INFO\"")).collect::<Vec<_>>().join("\n")
    }
}
