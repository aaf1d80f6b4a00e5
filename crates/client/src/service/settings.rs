//! What every service can be told, each setting once: flags, variables, help and the table in the module's documentation are
//! made from, or compared with, the table below.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use roundsman_protocol::{Address, Invalid, Namespace};

use super::{
    GRACE,
    values::{BREAKER, breaker, duration, entry, fitting, grace, listen, log_format, rule, servers, sound},
};
use crate::{breaker::CircuitBreaker, builder::Builder, new_instance::NewInstance};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What a service is told. `None`: nobody said, and the client or the instance keeps what it has.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) listen: SocketAddr,
    pub(super) advertise: Option<Address>,
    pub(super) health_listen: Option<SocketAddr>,
    pub(super) ready_file: Option<PathBuf>,
    pub(super) log_format: LogFormat,
    pub(super) grace: Duration,
    servers: Option<String>,
    namespace: Option<Namespace>,
    timeout: Option<Duration>,
    snapshot_file: Option<PathBuf>,
    empty_grace: Option<Duration>,
    breaker: Option<CircuitBreaker>,
    notice: Option<Duration>,
    id: Option<String>,
    version: Option<String>,
    zone: Option<String>,
    weight: Option<u32>,
    tags: Vec<String>,
    meta: Vec<(String, String)>,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag, without its dashes.
    pub(super) flag: &'static str,
    /// The environment variable.
    pub(super) variable: &'static str,
    /// What stands behind the flag in the help.
    pub(super) value: &'static str,
    /// What it is when nobody says anything.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// Whether it may be given several times, and be a list in the variable.
    pub(super) many: bool,
    /// Takes it over from text, or says which rule that breaks.
    pub(super) read: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Makes the table: flag, value, variable, default, help, and where the value goes.
macro_rules! settings {
    ($($flag:literal $value:literal $variable:literal = $default:expr, $help:literal, $many:literal, $read:expr;)+) => {
        /// All settings, in the order in which they are shown.
        pub(super) static SETTINGS: &[Setting] = &[$(Setting {
            flag: $flag,
            variable: $variable,
            value: $value,
            default: $default,
            help: $help,
            many: $many,
            read: $read,
        }),+];
    };
}

settings! {
    "listen" "ADDR" "ROUNDSMAN_LISTEN" = "the service's port on 127.0.0.1",
        "Where to listen; port 0 picks a free one", false,
        |to, text| listen(text).map(|addr| to.listen = addr);
    "advertise" "HOST:PORT" "ROUNDSMAN_ADVERTISE" = "the listen address",
        "The address that others reach this instance at", false,
        |to, text| fitting(text).map(|address| to.advertise = Some(address));
    "health-listen" "ADDR" "ROUNDSMAN_HEALTH_LISTEN" = "none",
        "A second place to answer /health at, and nothing else", false,
        |to, text| listen(text).map(|addr| to.health_listen = Some(addr));
    "discovery" "HOST:PORT" "ROUNDSMAN_SERVER" = "127.0.0.1:5555",
        "Discovery servers to register with and to find others by; several separated by commas", false,
        |to, text| servers(text).map(|servers| to.servers = Some(servers));
    "namespace" "NAME" "ROUNDSMAN_NAMESPACE" = "default",
        "The namespace to register in and to find others in", false,
        |to, text| fitting(text).map(|namespace| to.namespace = Some(namespace));
    "discovery-timeout" "TIME" "ROUNDSMAN_DISCOVERY_TIMEOUT" = "2s",
        "How long a call to discovery may take", false,
        |to, text| duration(text).map(|timeout| to.timeout = Some(timeout));
    "snapshot-file" "PATH" "ROUNDSMAN_SNAPSHOT_FILE" = "none",
        "Where it saves whom it knows, for a start without discovery", false,
        |to, text| { to.snapshot_file = Some(text.into()); Ok(()) };
    "empty-grace" "TIME" "ROUNDSMAN_EMPTY_GRACE" = "30s",
        "How long lists are kept against the word of a server that has lost its memory", false,
        |to, text| grace(text).map(|grace| to.empty_grace = Some(grace));
    "breaker" "RULES" "ROUNDSMAN_BREAKER" = BREAKER,
        "When instances that fail are passed over: any of these rules, or off", false,
        |to, text| breaker(text).map(|rules| to.breaker = Some(rules));
    "notice" "TIME" "ROUNDSMAN_NOTICE" = "500ms",
        "How long callers are given to notice that it leaves", false,
        |to, text| grace(text).map(|notice| to.notice = Some(notice));
    "grace" "TIME" "ROUNDSMAN_GRACE" = "10s",
        "How long what is under way is waited for at the end", false,
        |to, text| grace(text).map(|grace| to.grace = grace);
    "id" "ID" "ROUNDSMAN_ID" = "a new one at each start",
        "The instance's id, unique in the namespace", false,
        |to, text| sound(|instance| instance.id(text)).map(|()| to.id = Some(text.to_owned()));
    "service-version" "VERSION" "ROUNDSMAN_SERVICE_VERSION" = "that of the program",
        "The version it registers", false,
        |to, text| sound(|instance| Ok(instance.version(text))).map(|()| to.version = Some(text.to_owned()));
    "zone" "ZONE" "ROUNDSMAN_ZONE" = "none",
        "Where it runs", false,
        |to, text| sound(|instance| Ok(instance.zone(text))).map(|()| to.zone = Some(text.to_owned()));
    "weight" "N" "ROUNDSMAN_WEIGHT" = "1",
        "Its share of lookups, relative to the service's other instances", false,
        |to, text| {
            let weight = text.parse().map_err(|_| "must be a number".to_owned())?;
            sound(|instance| Ok(instance.weight(weight))).map(|()| to.weight = Some(weight))
        };
    "tag" "TAG" "ROUNDSMAN_TAGS" = "none",
        "A word to be found by; may be given several times", true,
        |to, text| sound(|instance| Ok(instance.tag(text))).map(|()| to.tags.push(text.to_owned()));
    "meta" "KEY=VALUE" "ROUNDSMAN_META" = "none",
        "A metadata entry; may be given several times", true,
        |to, text| entry(text).map(|entry| to.meta.push(entry));
    "ready-file" "PATH" "ROUNDSMAN_READY_FILE" = "none",
        "Where the addresses it really listens on are written, as JSON, once it serves", false,
        |to, text| { to.ready_file = Some(text.into()); Ok(()) };
    "log-format" "FORMAT" "ROUNDSMAN_LOG_FORMAT" = "human",
        "How log lines look, human or json; RUST_LOG filters", false,
        |to, text| log_format(text).map(|format| to.log_format = format);
}

// === impl Settings ===

impl Settings {
    pub(super) fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            advertise: None,
            health_listen: None,
            ready_file: None,
            log_format: LogFormat::Human,
            grace: GRACE,
            servers: None,
            namespace: None,
            timeout: None,
            snapshot_file: None,
            empty_grace: None,
            breaker: None,
            notice: None,
            id: None,
            version: None,
            zone: None,
            weight: None,
            tags: Vec::new(),
            meta: Vec::new(),
        }
    }

    /// The client, with what was said of it.
    pub(super) fn client(&self, client: Builder) -> Builder {
        let client = with(client, self.servers.as_deref(), Builder::servers);
        let client = with(client, self.namespace.as_ref(), |client, name| client.namespace(name.as_str()));
        let client = with(client, self.timeout, Builder::timeout);
        let client = with(client, self.snapshot_file.as_ref(), |client, path| client.snapshot_file(path));
        let client = with(client, self.empty_grace, Builder::empty_grace);
        let client = with(client, self.breaker, Builder::circuit_breaker);
        with(client, self.notice, Builder::notice)
    }

    /// The instance, with what was said of it.
    ///
    /// # Errors
    /// For an id that breaks its rule.
    pub(super) fn instance(&self, mut instance: NewInstance) -> Result<NewInstance, Invalid> {
        if let Some(id) = &self.id {
            instance = instance.id(id)?;
        }
        let instance = with(instance, self.version.as_deref(), NewInstance::version);
        let instance = with(instance, self.zone.as_deref(), NewInstance::zone);
        let instance = with(instance, self.weight, NewInstance::weight);
        let instance = self.tags.iter().fold(instance, |instance, tag| instance.tag(tag.as_str()));
        Ok(self.meta.iter().fold(instance, |instance, (key, value)| instance.meta(key, value)))
    }

    /// The address to register: the one given, or the one it listens on.
    ///
    /// # Errors
    /// When it listens everywhere and was not told which of its addresses others use.
    pub(super) fn advertised(&self, listening: SocketAddr) -> Result<Address, Invalid> {
        match &self.advertise {
            Some(address) => Ok(address.clone()),
            None => Address::try_from(listening).map_err(|invalid| {
                let rule = format!("is needed when it listens on {}: {}", self.listen, rule(invalid));
                Invalid::new("--advertise", rule)
            }),
        }
    }

    /// Checks what must fit together, before anything is begun.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn validate(&self) -> Result<(), String> {
        // Some port, where the real one is not known yet.
        let listening = SocketAddr::new(self.listen.ip(), self.listen.port().max(1));
        self.advertised(listening).map_err(|invalid| invalid.to_string())?;
        sound(|instance| self.instance(instance)).map_err(|rule| format!("--tag and --meta: {rule}"))?;
        if self.health_listen == Some(self.listen) && self.listen.port() != 0 {
            return Err(format!("--health-listen: must be another address than --listen, got {}", self.listen));
        }
        Ok(())
    }

    /// Where the one that listens is asked for its health.
    pub(super) fn probed(&self) -> SocketAddr {
        self.health_listen.unwrap_or(self.listen)
    }
}

fn with<T, V>(plain: T, value: Option<V>, set: impl FnOnce(T, V) -> T) -> T {
    match value {
        Some(value) => set(plain, value),
        None => plain,
    }
}
