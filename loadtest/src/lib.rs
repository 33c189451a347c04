//! Load generator for servers of the Centrifuge client protocol: connects many clients, publishes in an open loop, holds
//! every delivery against what was sent, and charges the cost to the server's processes. The binary is a recipe over it.
//!
//! A coordinator ([`scenario`]) leads worker processes ([`worker`]) through the phases of a run by messages over pipes
//! ([`control`]); both hold the same [`plan`] and read the same [`clock`].

pub mod cli;
pub mod client;
pub mod clock;
pub mod control;
pub mod figures;
pub mod floor_server;
pub mod histogram;
pub mod oracle;
pub mod payload;
pub mod plan;
pub mod process;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod threshold;
pub mod turmoil;
pub mod units;
pub mod worker;
