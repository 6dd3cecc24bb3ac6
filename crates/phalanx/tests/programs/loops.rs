//! A server of one thread. A request for `/loop` never ends, and nothing else is answered afterwards.

use std::error::Error;

use axum::Router;
use axum::routing::get;
use phalanx::ThisWorker;

fn main() -> phalanx::Result<()> {
    phalanx::builder().run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn Error + Send + Sync>> {
    let app = Router::new()
        .route(
            "/",
            get(|| async { format!("hello, pid = {}\n", std::process::id()) }),
        )
        .route("/loop", get(spins_for_ever));
    phalanx::serve(worker.listen("127.0.0.1:0").await?, app).await;
    Ok(())
}

async fn spins_for_ever() -> &'static str {
    loop {
        std::hint::spin_loop();
    }
}
