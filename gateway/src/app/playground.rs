//! Serves the playground: one page to try the node with, told by the server what it needs to connect.

use axum::{Router, response::Html, routing::get};
use serde::Serialize;

use super::token;
use crate::config::Loaded;

const PAGE: &str = include_str!("../playground/index.html");

/// Where the page expects its configuration.
const PLACE: &str = "__PLAYGROUND_CONFIG__";

#[derive(Serialize)]
struct Config<'a> {
    /// A token to connect with; empty where visitors have to bring their own.
    token: String,
    node: &'a str,
    version: &'static str,
    endpoint: &'static str,
}

/// The page at `/`, where it is on.
pub(super) fn routes(loaded: &Loaded) -> Router {
    if !loaded.settings.playground {
        return Router::new();
    }
    let config = Config {
        token: if loaded.development { token::development(&loaded.settings) } else { String::new() },
        node: &loaded.settings.node_name,
        version: env!("CARGO_PKG_VERSION"),
        endpoint: "/connection/websocket",
    };
    // Within a script element only `</` could end the text early.
    let config = serde_json::to_string(&config).unwrap_or_default().replace('<', "\\u003c");
    let page = PAGE.replacen(PLACE, &config, 1);
    Router::new().route("/", get(async move || Html(page.clone())))
}
