//! Instances that serve gRPC, by tonic itself, each on threads of its own so that it can be killed as a whole.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use roundsman::grpc::Channel;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codegen::http::{self, uri::PathAndQuery},
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// The only message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

/// What an instance does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Well,
    /// This code at once.
    Says(Code),
    /// A message, then this code.
    EndsWith(Code),
    /// No answer, ever.
    Hangs,
}

/// One instance. Killed when dropped.
pub(crate) struct Shop {
    pub(crate) addr: SocketAddr,
    counter: Counter,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

/// What serves.
#[derive(Clone)]
struct Counter {
    manner: Arc<Mutex<Manner>>,
    seen: Arc<AtomicUsize>,
}

/// Says that it serves, as the standard health service does.
#[derive(Clone)]
struct Healthy;

#[derive(Clone, PartialEq, prost::Message)]
struct Serving {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(crate) fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

fn codec() -> ProstCodec<Text, Text> {
    ProstCodec::default()
}

// === impl Shop ===

impl Shop {
    pub(crate) async fn start(manner: Manner) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let counter = Counter { manner: Arc::new(Mutex::new(manner)), seen: Arc::default() };
        let (stop, serving) = (CancellationToken::new(), counter.clone());
        let stopped = stop.clone().cancelled_owned();
        let started = runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = Server::builder().add_service(serving).add_service(Healthy);
            (addr, server.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped))
        });
        let (addr, serving) = started.await.unwrap();
        runtime.spawn(async { serving.await.unwrap() });
        Self { addr, counter, stop, runtime: Some(runtime) }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.counter.manner.lock().unwrap() = manner;
    }

    /// How many calls came.
    pub(crate) fn seen(&self) -> usize {
        self.counter.seen.load(Ordering::Relaxed)
    }

    /// It takes no more calls, and finishes those that it has.
    pub(crate) fn drain(&self) {
        self.stop.cancel();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Counter ===

impl Counter {
    /// What it does with all kinds of calls: answers each message by itself.
    async fn reply(
        self,
        asked: impl Stream<Item = Result<Text, Status>> + Send + 'static,
    ) -> Result<Response<BoxStream<'static, Result<Text, Status>>>, Status> {
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Well => Ok(Response::new(asked.boxed())),
            Manner::Says(code) => Err(Status::new(code, "as told")),
            Manner::EndsWith(code) => {
                let end = stream::iter([Ok(text("first")), Err(Status::new(code, "as told"))]);
                Ok(Response::new(end.boxed()))
            }
            Manner::Hangs => std::future::pending().await,
        }
    }

    async fn serve(self, request: http::Request<Body>) -> http::Response<Body> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let mut grpc = tonic::server::Grpc::new(codec());
        match request.uri().path() {
            "/test.Shop/Buy" => {
                let buy = service_fn(|request: Request<Text>| {
                    let counter = self.clone();
                    async move {
                        let mut replies = counter.reply(stream::iter([Ok(request.into_inner())])).await?.into_inner();
                        let reply = replies.next().await.unwrap()?;
                        replies.next().await.transpose()?;
                        Ok(Response::new(reply))
                    }
                });
                grpc.unary(buy, request).await
            }
            "/test.Shop/Repeat" => {
                let repeat = service_fn(|request: Request<Text>| {
                    let asked = request.into_inner();
                    self.clone().reply(stream::iter((0..3).map(move |_| Ok(asked.clone()))))
                });
                grpc.server_streaming(repeat, request).await
            }
            "/test.Shop/Join" => {
                let join = service_fn(|request: Request<Streaming<Text>>| {
                    let counter = self.clone();
                    async move {
                        let mut replies = counter.reply(request.into_inner()).await?.into_inner();
                        let mut all = String::new();
                        while let Some(reply) = replies.next().await.transpose()? {
                            all.push_str(&reply.text);
                        }
                        Ok(Response::new(text(all)))
                    }
                });
                grpc.client_streaming(join, request).await
            }
            _ => {
                let chat = service_fn(|request: Request<Streaming<Text>>| self.clone().reply(request.into_inner()));
                grpc.streaming(chat, request).await
            }
        }
    }
}

impl Service<http::Request<Body>> for Counter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.clone().serve(request).map(Ok).boxed()
    }
}

impl NamedService for Counter {
    const NAME: &'static str = "test.Shop";
}

// === impl Healthy ===

impl Service<http::Request<Body>> for Healthy {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = async move {
            // The question is a text as well.
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Serving, Text>::default());
            let check = service_fn(|_: Request<Text>| async { Ok::<_, Status>(Response::new(Serving { status: 1 })) });
            Ok(grpc.unary(check, request).await)
        };
        answer.boxed()
    }
}

impl NamedService for Healthy {
    const NAME: &'static str = "grpc.health.v1.Health";
}

// What a generated client does.

pub(crate) async fn buy(channel: &Channel, what: impl Into<String>) -> Result<Response<Text>, Status> {
    buy_as(channel, Request::new(text(what))).await
}

pub(crate) async fn buy_as(channel: &Channel, request: Request<Text>) -> Result<Response<Text>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    grpc.unary(request, PathAndQuery::from_static("/test.Shop/Buy"), codec()).await
}

pub(crate) async fn repeat(channel: &Channel, what: &str) -> Result<Response<Streaming<Text>>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    grpc.server_streaming(Request::new(text(what)), PathAndQuery::from_static("/test.Shop/Repeat"), codec()).await
}

pub(crate) async fn join(
    channel: &Channel,
    parts: impl Stream<Item = Text> + Send + 'static,
) -> Result<Response<Text>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    grpc.client_streaming(Request::new(parts), PathAndQuery::from_static("/test.Shop/Join"), codec()).await
}

pub(crate) async fn chat(
    channel: &Channel,
    parts: impl Stream<Item = Text> + Send + 'static,
) -> Result<Response<Streaming<Text>>, Status> {
    chat_as(channel, Request::new(parts)).await
}

pub(crate) async fn chat_as(
    channel: &Channel,
    request: Request<impl Stream<Item = Text> + Send + 'static>,
) -> Result<Response<Streaming<Text>>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    grpc.streaming(request, PathAndQuery::from_static("/test.Shop/Chat"), codec()).await
}
