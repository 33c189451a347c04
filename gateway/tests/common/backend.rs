//! A backend of the tests: a real HTTP server that answers hooks as the test says, and keeps what it was asked.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde_json::Value;
use tokio::net::TcpListener;

/// A backend, which ends with the test's runtime.
pub struct Backend {
    /// Where it is asked.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What it was asked.
struct Asked {
    hook: String,
    body: Value,
    headers: HeaderMap,
}

impl Backend {
    /// A backend that answers so: the function is told the last part of the path and the body.
    pub async fn start<A: Future<Output = Response> + Send + 'static>(
        answer: impl Fn(String, Value) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, asked) = (listener.local_addr().expect("it listens"), Arc::default());
        let log: Arc<Mutex<Vec<Asked>>> = Arc::clone(&asked);
        let handle = async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.expect("a whole body");
            let body: Value = serde_json::from_slice(&body).expect("a body of JSON");
            let hook = head.uri.path().trim_start_matches('/').to_owned();
            let asked = Asked { hook: hook.clone(), body: body.clone(), headers: head.headers };
            log.lock().expect("nobody panics with it").push(asked);
            answer(hook, body).await
        };
        let router = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, asked }
    }

    /// A backend that gives these answers.
    pub async fn saying(answer: impl Fn(&str, &Value) -> Value + Clone + Send + Sync + 'static) -> Self {
        Self::start(move |hook, body| std::future::ready(answer(&hook, &body).to_string().into_response())).await
    }

    /// Settings that have these hooks at this backend, and wait for its answers however busy the machine is.
    pub fn settings(&self, hooks: &[&str]) -> String {
        hooks
            .iter()
            .map(|hook| {
                format!("hooks.{hook}.url = \"http://{}/{hook}\"\nhooks.{hook}.timeout = \"30s\"\n", self.address)
            })
            .collect::<Vec<_>>()
            .concat()
    }

    /// What it was asked of this kind.
    pub fn asked(&self, hook: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("nobody panics with it");
        asked.iter().filter(|one| one.hook == hook).map(|one| one.body.clone()).collect()
    }

    /// The value of a header, each time it was asked this; empty where there was none.
    pub fn headers(&self, hook: &str, name: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("nobody panics with it");
        let value = |headers: &HeaderMap| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
        asked.iter().filter(|one| one.hook == hook).map(|one| value(&one.headers).unwrap_or_default()).collect()
    }
}
