//! Builds a node from its settings, floor by floor, runs it, and stops it. The only place where everything is known.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Router, routing::any};
use tokio::{net::TcpListener, signal::unix::Signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::Api,
    auth::Verifier,
    broker::{Broker, memory::MemoryBroker, redis::RedisBroker, redis::RedisOptions},
    cli,
    config::{Loaded, Settings, Sources},
    hooks::Hooks,
    hub::{Deliver, Hub},
    memory,
    metrics::Metrics,
    node::{
        Node, Watch,
        cluster::{self, Cluster, Floors},
    },
    ops::Readiness,
    session::{Context, Gate},
    shutdown::Stoppable,
    transport::{self, Entrance, listen},
};

mod banner;
mod files;
mod lines;
mod log;
mod playground;
mod reload;
mod signals;
mod token;

pub use log::Log;
use reload::Reload;
use signals::Signals;

/// A node that runs.
pub struct Running {
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where the server API, metrics and health are.
    pub internal: SocketAddr,
    stoppable: Stoppable,
}

/// Runs a node until a signal tells it to stop, with its log, which whoever started it has to end.
///
/// # Errors
/// The node could not start, for instance because an address is taken.
pub async fn serve(loaded: Loaded, sources: Sources, log: &Log) -> anyhow::Result<()> {
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    files::raise_limit();
    let (mut signals, hangup) = (Signals::listen()?, Signals::hangup()?);
    let running = start(&loaded)?;
    if loaded.development {
        banner::print(&loaded.settings, running.clients);
    }
    running.reload_from(sources, loaded, hangup);
    running.count_lost_lines(log.clone());
    signals.next().await;
    signals.end_at_the_next(log.clone());
    running.stop().await;
    Ok(())
}

/// Builds a node and starts it: when this returns, it listens. Has to be called within a runtime.
///
/// # Errors
/// An address is taken, or a key or URL is not understood.
pub fn start(loaded: &Loaded) -> anyhow::Result<Running> {
    let settings = Arc::new(loaded.settings.clone());
    let metrics = Arc::new(Metrics::new());
    let (connections, services) = (TaskTracker::new(), TaskTracker::new());
    let (accepting, serving) = (CancellationToken::new(), CancellationToken::new());

    let hub = Hub::new(settings.hub.inbox_size, metrics.clone(), services.clone());
    let hub = Arc::new(hub.compressing_from(settings.websocket.compression_min_size));
    let broker = broker(&settings, hub.clone(), &metrics, &services, &serving)?;
    let control = broker.control.clone();
    let presence = broker.presence.clone();
    let node = Node::new(&settings.node_name, hub, broker, services.clone());
    let node = Arc::new(node.with_presence(presence, settings.channel.presence_ttl));
    let gauges = memory::Gauges { limit: metrics.memory_limit.clone(), shedding: metrics.shedding.clone() };
    services.spawn(memory::watch(settings.memory.limit, gauges, serving.clone()));
    services.spawn(node.clone().leave_empty_rooms(serving.clone()));
    services.spawn(node.clone().keep_presence(settings.channel.presence_update_interval, serving.clone()));

    let verifier = verifier(&settings, &services, &serving)?;
    let context = Context::new(node.clone(), verifier, settings.clone(), metrics.clone());
    let context = Arc::new(context.with_hooks(Hooks::new(&settings, &metrics)?));
    let floors = Floors { hub: node.hub().clone(), control, local: context.clone(), facts: context.clone() };
    let cluster = Cluster::start(cluster::Options::new(&*settings.node_name), floors, &services, &serving);
    node.is_known_as(cluster.uid().clone());
    let (limited, stop) = (context.clone(), serving.clone());
    services.spawn(async move { limited.limits.keep_small(&stop).await });
    services.spawn(node.clone().watch_positions(watch(&context), serving.clone()));
    let limits = &settings.client;
    let gate = Gate::new(limits.connection_limit, limits.connection_rate_limit, metrics.connections.clone());
    // A node by itself has nothing to read: what it knows begins with it.
    let (alone, facts) = (settings.redis.every_url().next().is_none(), cluster.clone());
    let informed = move || alone || facts.knows_facts();
    let readiness = Readiness::new(node, gate.clone(), metrics, settings.ready.broker_grace, informed);
    let entrance = Entrance::new(context.clone(), gate, connections.clone(), Some(cluster.clone()));

    let limits = settings.shutdown.clone();
    let stoppable =
        Stoppable { readiness, context, cluster: cluster.clone(), accepting, serving, connections, services, limits };
    let client_routes = transport::routes(&entrance).merge(playground::routes(loaded));
    let (clients, internal) =
        listen(&settings, client_routes, internal_routes(loaded, &stoppable, cluster), &stoppable)?;
    let broker = if settings.redis.every_url().next().is_some() { "redis" } else { "memory" };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, node = settings.node_name, %clients, %internal, broker, "listening");
    Ok(Running { clients, internal, stoppable })
}

/// Opens the listeners, or the one that serves all, and gives their addresses.
fn listen(
    settings: &Settings,
    client_routes: Router,
    internal_routes: Router,
    node: &Stoppable,
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let options = listen::Options::from(settings);
    let listener = bind("listen", settings.listen, &options)?;
    let clients = listener.local_addr()?;
    let serve = |listener, router, takes_last_files, stop: &CancellationToken, tracker: &TaskTracker| {
        let options = Arc::new(listen::Options { takes_last_files, ..options.clone() });
        node.services.spawn(listen::serve(listener, router, options, stop.clone(), tracker.clone()));
    };
    if settings.one_listener() {
        serve(listener, client_routes.merge(internal_routes), false, &node.accepting, &node.connections);
        return Ok((clients, clients));
    }
    let internal_listener = bind("internal_listen", settings.internal_listen, &options)?;
    let internal = internal_listener.local_addr()?;
    serve(internal_listener, internal_routes, true, &node.serving, &node.services);
    serve(listener, client_routes, false, &node.accepting, &node.connections);
    Ok((clients, internal))
}

impl Running {
    /// From now on reads the settings again at SIGHUP, or when their file changes.
    fn reload_from(&self, sources: Sources, loaded: Loaded, hangup: Signal) {
        let Stoppable { context, services, serving, .. } = &self.stoppable;
        let reload = Reload::new(sources, loaded, context.clone(), hangup);
        services.spawn(reload.run(serving.clone()));
    }

    /// From now on counts the lines of the log that are lost.
    fn count_lost_lines(&self, log: Log) {
        let Stoppable { context, services, serving, .. } = &self.stoppable;
        services.spawn(log.count_lost(context.metrics.log_lines_lost.clone(), serving.clone()));
    }

    /// Stops the node as a signal would, and returns when every task has ended.
    pub async fn stop(self) {
        self.stoppable.stop().await;
    }
}

fn broker(
    settings: &Settings,
    hub: Arc<Hub>,
    metrics: &Arc<Metrics>,
    services: &TaskTracker,
    serving: &CancellationToken,
) -> anyhow::Result<Broker> {
    let deliver: Arc<dyn Deliver> = hub;
    let urls: Vec<_> = settings.redis.every_url().map(|url| url.reveal().to_owned()).collect();
    if urls.is_empty() {
        let broker = MemoryBroker::new(deliver, metrics.clone());
        return Ok(broker.with_history_memory(settings.channel.history_memory).into());
    }
    let options = RedisOptions {
        prefix: settings.redis.prefix.clone(),
        connect_timeout: settings.redis.connect_timeout,
        io_timeout: settings.redis.io_timeout,
        publish_queue: settings.redis.publish_queue as usize,
        cluster_partitions: settings.redis.cluster_partitions,
        gathering_pause: settings.redis.gathering_pause,
        ..RedisOptions::several(urls)
    };
    Ok(RedisBroker::start(&options, deliver, metrics.clone(), services, serving.clone())?.into())
}

/// How the positions of rooms are watched.
fn watch(context: &Arc<Context>) -> Watch {
    let rules = context.clone();
    Watch {
        delay: context.settings.channel.position_check_delay,
        meta_ttl: Box::new(move |room| rules.meta_ttl_of(room)),
        metrics: context.metrics.clone(),
    }
}

/// What checks tokens, with keys that are fetched where an address is set; nothing where no key is.
fn verifier(
    settings: &Settings,
    services: &TaskTracker,
    serving: &CancellationToken,
) -> anyhow::Result<Option<Verifier>> {
    let keys = &settings.auth;
    if !keys.any_key() {
        return Ok(None);
    }
    let verifier = cli::verifier(keys)?;
    let (fresh, stop) = (verifier.clone(), serving.clone());
    services.spawn(async move { stop.run_until_cancelled_owned(fresh.keep_keys_fresh()).await });
    Ok(Some(verifier))
}

fn internal_routes(loaded: &Loaded, node: &Stoppable, cluster: Arc<Cluster>) -> Router {
    let key = loaded.settings.api.key.clone();
    let routes = node.readiness.routes();
    if key.is_some() || loaded.development {
        return routes.merge(Api::new(node.context.clone(), cluster, key).routes());
    }
    let off = "the server API is off: set api.key (ROOMCAST_API_KEY)\n";
    routes.route("/api/{method}", any(async move || (http::StatusCode::NOT_FOUND, off)))
}

fn bind(setting: &str, address: SocketAddr, options: &listen::Options) -> anyhow::Result<TcpListener> {
    listen::bind(address, options.send_buffer).with_context(|| {
        let flag = setting.replace('_', "-");
        format!("cannot listen on {address}; choose another address, for instance --{flag} 127.0.0.1:0 for a free port")
    })
}

impl From<&Settings> for listen::Options {
    fn from(settings: &Settings) -> Self {
        Self {
            header_timeout: settings.http.header_timeout,
            send_buffer: settings.client.send_buffer,
            trusted_proxies: settings.trusted_proxies.clone(),
            takes_last_files: false,
        }
    }
}
