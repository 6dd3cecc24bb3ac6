//! A server that answers with the status that stood in a file when it started: `statuses ADDRESS FILE`.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use phalanx::ThisWorker;

fn main() -> phalanx::Result<()> {
    phalanx::builder().run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_default();
    let file = arguments.next().unwrap_or_default();
    let status: StatusCode = std::fs::read_to_string(file)?.trim().parse()?;
    let answer = move || async move { (status, format!("pid = {}\n", std::process::id())) };
    let app = Router::new().route("/", get(answer)).layer(worker.meter());
    let listener = worker.listen(address).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(worker.draining())
        .await?;
    Ok(())
}
