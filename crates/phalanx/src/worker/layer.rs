//! [`Meter`] as a layer of `tower`, and so of `axum`: `router.layer(worker.meter())`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::meter::{Meter, Timed};

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            meter: self.clone(),
        }
    }
}

/// A service whose requests are timed, each until the head of its response is there.
///
/// Upgrades (101), such as `WebSocket` ones, and errors say nothing of a worker's speed, and are not timed.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    inner: S,
    meter: Meter,
}

impl<S, R, B> Service<R> for Metered<S>
where
    S: Service<R, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = MeteredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> MeteredFuture<S::Future> {
        let timed = self.meter.begin();
        MeteredFuture {
            inner: self.inner.call(request),
            timed: Some(timed),
        }
    }
}

pin_project! {
    /// The response to a request that is timed.
    #[derive(Debug)]
    pub struct MeteredFuture<F> {
        #[pin]
        inner: F,
        timed: Option<Timed>,
    }
}

impl<F, B, E> Future for MeteredFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let timed = this.timed.take();
        if let (Ok(response), Some(timed)) = (&result, timed)
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            if response.status().is_server_error() {
                timed.end_with_error();
            } else {
                timed.end();
            }
        }
        Poll::Ready(result)
    }
}
