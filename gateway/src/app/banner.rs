//! What development mode tells the person who started it: a page to open, a token, and two lines to paste.

use std::{io::Write, net::SocketAddr};

use super::token;
use crate::config::Settings;

/// Prints it to the standard output; logs go to the standard error.
pub(super) fn print(settings: &Settings, address: SocketAddr) {
    let token = token::development(settings);
    let line = format!(
        "ws = new WebSocket(\"ws://{address}/ws\"); ws.onmessage = e => console.log(e.data); ws.onopen = () => \
         ws.send('{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}\\n{{\"id\":2,\"subscribe\":{{\"channel\":\"lobby\"}}}}')"
    );
    let text = format!(
        "\n  Roomcast {version} in development mode: loopback only, and every client may enter every room.\n\n  \
         Page     http://{address}/\n  \
         Token    {token}\n  \
         Console  {line}\n  \
         Speak    ws.send('{{\"id\":3,\"publish\":{{\"channel\":\"lobby\",\"data\":\"hello\"}}}}')\n\n  \
         For more than trying it out, set auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET); see README.md.\n\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    // Nobody may be listening to the output.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
