//! An axum server that knows nothing of phalanx, and has no signal handler: for comparison and tests.
//! Usage: `plain_axum ADDRESS`

use std::error::Error;

use axum::Router;
use axum::routing::get;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("the address is missing")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let app = Router::new().route("/", get(|| async { hello() }));
    axum::serve(listener, app).await?;
    Ok(())
}

fn hello() -> String {
    format!("hello, pid = {}\n", std::process::id())
}
