//! The examples do what they say. Each is run here as a module; `main` only reads the command line.

use roundsman_discovery::Server;
use tokio::sync::oneshot;

use crate::{
    backend::{Manner, Service},
    shop::{self, Shop},
    support::{client, eventually, instance, server, soon},
};

macro_rules! examples {
    ($($name:ident: $path:literal),+) => {$(
        #[path = $path]
        #[allow(dead_code, reason = "its main")]
        mod $name;
    )+};
}

examples! {
    balance: "../../examples/balance.rs",
    call: "../../examples/call.rs",
    grpc: "../../examples/grpc.rs",
    middleware: "../../examples/middleware.rs",
    resolve: "../../examples/resolve.rs",
    serve: "../../examples/serve.rs"
}

async fn shop() -> (Server, roundsman::Discovery, Service) {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Well]).await;
    (server, discovery, service)
}

#[tokio::test]
async fn callers_reach_the_product() {
    let (server, discovery, service) = shop().await;
    soon(resolve::run(&discovery)).await.unwrap();
    assert_eq!(service.count(), 0);
    soon(call::run(&discovery)).await.unwrap();
    assert_eq!(service.count(), 1);
    soon(middleware::run(&discovery)).await.unwrap();
    assert_eq!(service.count(), 2);
    soon(balance::run(&discovery)).await.unwrap();
    assert_eq!(service.count(), 5);
    let greeter = Shop::start(shop::Manner::Well).await;
    let _greeter = discovery.register(instance("greeter", greeter.addr.port())).await.unwrap();
    assert_eq!(soon(grpc::run(&discovery, "greeter")).await.unwrap(), "SERVING");
    server.stop().await;
}

#[tokio::test]
async fn the_service_serves_until_it_is_told_to_stop() {
    let (server, discovery, _service) = shop().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve::run(&discovery, async { drop(stopped.await) });
    let calling = async {
        eventually("it is found", async || discovery.get("greeter").await.is_ok()).await;
        let hello = soon(discovery.http("greeter").get("/hello").send()).await.unwrap();
        assert_eq!(hello.text(), "hello");
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(soon(serving), calling);
    served.unwrap();
    assert!(discovery.get("greeter").await.unwrap_err().is_not_found());
    server.stop().await;
}
