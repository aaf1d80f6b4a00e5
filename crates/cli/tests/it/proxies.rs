//! The examples of docs/examples on real proxies: no request fails while instances come, are killed and leave.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::{Served, Watching, eventually};

/// For an answer that takes its time on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// An instance of product: answers every request with its own port.
struct Product {
    address: SocketAddr,
    id: String,
    gone: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Product {
    fn start(server: &Served) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, gone) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let leaving = Arc::clone(&gone);
        let serving = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if leaving.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || answer(stream, address.port()));
            }
        });
        let args = ["register", "--name", "product", "--address", &address.to_string(), "--interval", "200ms"];
        let id = server.run(&[&args[..], &["--timeout", "200ms"]].concat()).ok().trim().to_owned();
        Self { address, id, gone, serving: Some(serving) }
    }

    /// As a process that is killed: nobody listens any more, and nobody was told.
    fn kill(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.serving.take().unwrap().join().unwrap();
    }
}

fn answer(mut stream: TcpStream, port: u16) {
    let mut head = Vec::new();
    let mut piece = [0; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
    let body = port.to_string();
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    drop(stream.write_all(text.as_bytes()));
}

/// One request on a connection of its own: the body, or what went wrong.
fn ask(proxy: SocketAddr) -> Result<String, String> {
    let mut stream = TcpStream::connect(proxy).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: product\r\nconnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(text);
    }
    Ok(text.rsplit("\r\n").next().unwrap_or_default().trim().to_owned())
}

/// Asks without a pause, and keeps what went wrong.
struct Load {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(proxy: SocketAddr) -> Self {
        let (over, asked, failed) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>)>::default();
        let asking = |_| {
            let (over, asked, failed) = (Arc::clone(&over), Arc::clone(&asked), Arc::clone(&failed));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Err(error) = ask(proxy) {
                        failed.lock().unwrap().push(error);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..2).map(asking).collect();
        Self { over, asked, failed, threads }
    }

    fn end(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let failed = self.failed.lock().unwrap().clone();
        (self.asked.load(Ordering::Relaxed), failed)
    }
}

/// A proxy in the foreground; ended in the way that it likes best.
struct Proxy(Child);

impl Proxy {
    fn start(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(spawned.expect("a proxy could not be started: install nginx and haproxy (./scripts/test.sh does)"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The master ends its workers.
        drop(Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status());
        drop(self.0.wait());
    }
}

/// Where Debian puts servers is not on everybody's path.
fn debian(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var_os("PATH").unwrap().to_str().unwrap()));
    command
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name)
}

/// Runs an example: `start` gets the file, and as `exec` the folder for what the proxy keeps at run time.
fn no_request_fails(
    host: Ipv4Addr,
    name: &str,
    check: &str,
    start: impl Fn(&Path, &Path) -> Command,
    exec: impl Fn(&Path) -> String,
) {
    let check = format!("PATH=$PATH:/usr/sbin:/sbin {check}");
    let server = Served::start();
    let folder = tempfile::tempdir().unwrap();
    let template = example(name);
    let out = folder.path().join("proxy.conf");
    // A loopback address of our own: nobody else takes a port there between this look and the proxy's start.
    let listen = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
    let variables = [format!("listen={listen}"), format!("run={}", folder.path().display()), "workers=1".to_owned()];
    let set = variables.iter().flat_map(|variable| ["--set", variable.as_str()]);
    let args: Vec<&str> = ["render", template.to_str().unwrap(), out.to_str().unwrap(), "--check", &check]
        .into_iter()
        .chain(set)
        .collect();

    let mut products: Vec<Product> = (0..2).map(|_| Product::start(&server)).collect();
    server.run(&["wait", "product", "--passing", "2"]).ok();
    server.run(&[&args[..], &["--once"]].concat()).ok();
    let _proxy = Proxy::start(start(&out, folder.path()));
    eventually("the proxy answers", || ask(listen).ok());
    let exec = exec(folder.path());
    let _live = Watching::start(&server, &[&args[..], &["--exec", &exec]].concat());
    let knows = |address: SocketAddr| fs::read_to_string(&out).unwrap().contains(&address.to_string());

    let load = Load::start(listen);
    for round in 0..4 {
        let newcomer = Product::start(&server);
        let port = newcomer.address.port().to_string();
        eventually("the newcomer is known", || knows(newcomer.address).then_some(()));
        eventually("the newcomer is asked", || (ask(listen).ok()? == port).then_some(()));
        products.push(newcomer);
        let mut leaver = products.remove(0);
        if round % 2 == 0 {
            leaver.kill();
            eventually("the dead one is out", || (!knows(leaver.address)).then_some(()));
        } else {
            server.run(&["deregister", &leaver.id]).ok();
            eventually("the leaver is out", || (!knows(leaver.address)).then_some(()));
            leaver.kill();
        }
    }
    let (asked, failed) = load.end();
    assert!(failed.is_empty(), "{} of {asked} failed: {:?}", failed.len(), &failed[..failed.len().min(3)]);
    assert!(asked > 100, "only {asked} requests");

    // Nobody is left: the example still makes a file that the proxy takes.
    for product in &products {
        server.run(&["deregister", &product.id]).ok();
    }
    eventually("the proxy has nobody to ask", || ask(listen).err().filter(|error| error.contains(" 50")));
    products.iter_mut().for_each(Product::kill);
}

#[test]
fn nginx_follows_without_a_failed_request() {
    let start = |out: &Path, run: &Path| {
        let mut command = debian("nginx");
        command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(run).arg("-c").arg(out);
        command
    };
    no_request_fails(Ipv4Addr::new(127, 77, 0, 1), "nginx.conf.j2", "nginx -e stderr -t -q -c {}", start, |_| {
        "PATH=$PATH:/usr/sbin:/sbin nginx -e stderr -s reload -c {}".to_owned()
    });
}

#[test]
fn haproxy_follows_without_a_failed_request() {
    let start = |out: &Path, run: &Path| {
        let mut command = debian("haproxy");
        command.args(["-W", "-f"]).arg(out).arg("-p").arg(run.join("haproxy.pid"));
        command
    };
    let reload = example("haproxy-reload.sh");
    no_request_fails(Ipv4Addr::new(127, 77, 0, 2), "haproxy.cfg.j2", "haproxy -c -q -f {}", start, |run| {
        format!("sh '{}' '{}'", reload.display(), run.join("haproxy.pid").display())
    });
}
