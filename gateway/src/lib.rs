//! Roomcast: a horizontally scaled publish and subscribe gateway. Each module is a floor of the house and imports only
//! from the floors below it; docs/ARCHITECTURE.md has the table.

pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod hooks;
pub mod hub;
pub mod memory;
pub mod metrics;
pub mod moments;
pub mod node;
pub mod ops;
pub mod session;
pub mod shutdown;
pub mod transport;
