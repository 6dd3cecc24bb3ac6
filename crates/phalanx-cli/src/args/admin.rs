//! The options of `phalanx run` for its web view.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
#[command(next_help_heading = "Web view")]
pub(crate) struct AdminArgs {
    /// Serve a page that shows the app live and acts on it, and the control API: 127.0.0.1:9900
    ///
    /// On an address of loopback only processes of the user who runs the app, and root's, are served. Any other address, as
    /// 0.0.0.0:9900, demands a token: one is made up, and the file in which it is kept is told.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) admin: Option<SocketAddr>,

    /// Demand the token in the first line of this file, on loopback too
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let named = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address = named.as_deref().unwrap_or(text);
    address.parse().map_err(|_| {
        "use an IP address and a port: 127.0.0.1:9900, [::1]:9900, or 0.0.0.0:9900 for all addresses, with a token".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_an_ip_and_a_port() {
        assert_eq!(
            address("localhost:9900").unwrap().to_string(),
            "127.0.0.1:9900"
        );
        assert_eq!(address("[::1]:0").unwrap().to_string(), "[::1]:0");
        for text in ["9900", ":9900", "127.0.0.1", "web1:9900", "", "localhost:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
