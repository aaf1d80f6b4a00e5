//! The binary `product`: binds, registers, serves, and leaves in good order.

use std::{error::Error, io::Write, process::ExitCode, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use clap::{CommandFactory, Parser, error::ErrorKind};
use roundsman::{Discovery, NewInstance};
use roundsman_product::{args::Args, process, routes::routes, stock::Stock};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a call to discovery may take, saying goodbye included.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long requests in flight are waited for at the end.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.probe {
        process::probe(args.listen).await.map_err(Into::into)
    } else if let Err(rule) = args.advertised(args.listen_or_any_port()) {
        Args::command().error(ErrorKind::MissingRequiredArgument, rule).exit()
    } else {
        run(&args).await
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when even this fails.
            let _ = writeln!(std::io::stderr(), "product: {}", process::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    process::start_logs(args.log_format);
    let stop = process::stop_signal()?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let listening = listener.local_addr()?;

    // Serving comes first: discovery visits /health as soon as it knows the address, and may itself start later.
    let stopping = CancellationToken::new();
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let serving = axum::serve(listener, routes(Arc::new(Stock::initial())));
    let serving = serving.with_graceful_shutdown(stopping.clone().cancelled_owned());
    let mut server = JoinSet::new();
    server.spawn(serving.into_future());

    let discovery = Discovery::builder()
        .servers(args.discovery.as_slice())
        .namespace(args.namespace.as_str())
        .service("product")
        .timeout(DISCOVERY_TIMEOUT)
        .connect_lazy()?;
    let instance = NewInstance::new("product", args.advertised(listening)?)?.version(env!("CARGO_PKG_VERSION"));
    let registration = discovery.register_in_background(instance)?;
    tracing::info!(http.addr = %listening, id = %registration.id(), "serving");
    if let Some(path) = &args.ready_file {
        process::write_ready_file(path, listening)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }

    tokio::select! {
        () = stop => {}
        _ = server.join_next() => return Err("the HTTP server ended by itself".into()),
    }
    // Goodbye first, so that nobody is sent here any more; then the requests that are under way.
    tracing::info!("leaving");
    if let Err(error) = registration.close().await {
        tracing::warn!(%error, "could not deregister; discovery's next visit will notice");
    }
    stopping.cancel();
    if timeout(GRACE, server.join_next()).await.is_err() {
        tracing::warn!("requests were still under way after {} s, and were cut off", GRACE.as_secs());
    }
    discovery.close().await;
    Ok(())
}
