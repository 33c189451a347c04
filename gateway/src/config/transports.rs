//! Which ways to connect a node offers. Knows their names, not what they do.

use super::section::section;

section! {
    /// The ways to connect. One that is turned off answers 404.
    Transports {
        /// Whether clients may connect over a WebSocket (`/connection/websocket`, `/ws`).
        websocket: bool = "true",
        /// Whether clients may connect over server-sent events (`/connection/sse`).
        sse: bool = "true",
        /// Whether clients may connect over a streamed answer (`/connection/http_stream`).
        http_stream: bool = "true",
        /// Whether clients of these two may send commands (`/emulation`).
        emulation: bool = "true",
        /// Whether clients may listen over a WebSocket (`/connection/uni_websocket`).
        uni_websocket: bool = "true",
        /// Whether clients may listen to server-sent events (`/connection/uni_sse`).
        uni_sse: bool = "true",
        /// Whether clients may listen to a streamed answer (`/connection/uni_http_stream`).
        uni_http_stream: bool = "true",
        /// Size of what a client may send in one request to any of these but a WebSocket (413).
        request_size_limit: usize = "64KB",
    }
}
