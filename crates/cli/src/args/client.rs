//! What every command that asks a server takes, before its name or after it.

use clap::{ArgMatches, Args, ValueEnum, parser::ValueSource};
use roundsman::{DEFAULT_SERVER, Namespace};

use crate::exit::Failure;

/// Flags before the command's name. Those after it win.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection and output, before the command or after it")]
pub(crate) struct Globals {
    /// The server, or several with commas between them
    #[arg(long, env = "ROUNDSMAN_SERVER", value_name = "HOST:PORT", default_value = DEFAULT_SERVER)]
    server: String,
    /// The namespace (tenant) that the command is about
    #[arg(long, env = "ROUNDSMAN_NAMESPACE", value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// How to print the answer: table, wide, json, yaml or name, as far as the command knows it
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Which of them stand on the command line.
    #[arg(skip)]
    pub(super) typed: Vec<&'static str>,
}

/// The same after the command's name.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct ClientArgs<O: Shape = Plain> {
    /// The server, or several with commas between them [env: ROUNDSMAN_SERVER] [default: 127.0.0.1:5555]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The namespace (tenant) that the command is about [env: ROUNDSMAN_NAMESPACE] [default: default]
    #[arg(long, value_name = "NAMESPACE", value_parser = Namespace::try_new)]
    namespace: Option<Namespace>,
    /// How to print the answer [default: the first of these]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<O>,
}

/// How a command can print its answer.
pub(crate) trait Shape: ValueEnum + Copy + Default + Send + Sync + 'static {
    /// For programs, if it is one of those.
    fn data(self) -> Option<Data>;
}

/// How programs read an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Json,
    Yaml,
}

/// Of commands that print services or instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people who want to know more
    Wide,
    /// For programs
    Json,
    /// For programs, and people
    Yaml,
    /// Only names, or ids: one a line, for scripts
    Name,
}

/// Of all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plain {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs, and people
    Yaml,
}

// === impl Globals ===

impl Globals {
    /// The names of those that stand on the command line, before the command.
    pub(super) fn typed(matches: &ArgMatches) -> Vec<&'static str> {
        let typed = |flag: &&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
        ["server", "namespace", "output"].into_iter().filter(typed).collect()
    }

    /// For a command that asks no server: nothing of this is about it.
    pub(super) fn unheard(&self) -> Result<Namespace, Failure> {
        match self.typed.first() {
            Some(flag) => Err(Failure::Usage(format!("this command asks no server; leave --{flag} out"))),
            None => Ok(Namespace::default()),
        }
    }

    /// Whether it says something. An empty variable is one that nobody has set, as everywhere.
    fn says(&self, flag: &str, value: &str) -> bool {
        !value.is_empty() || self.typed.contains(&flag)
    }
}

// === impl ClientArgs ===

impl<O: Shape> ClientArgs<O> {
    /// Takes in what was said before the command's name, or in the environment. Returns the namespace.
    pub(crate) fn fill(&mut self, globals: &Globals) -> Result<Namespace, Failure> {
        if globals.says("server", &globals.server) {
            self.server.get_or_insert_with(|| globals.server.clone());
        }
        if self.namespace.is_none() && globals.says("namespace", &globals.namespace) {
            self.namespace = Some(Namespace::try_new(&globals.namespace).map_err(roundsman::Error::from)?);
        }
        if let Some(output) = globals.output.as_ref().filter(|_| self.output.is_none()) {
            let known = O::from_str(output, true).map_err(|_| {
                let values = O::value_variants().iter().filter_map(O::to_possible_value);
                let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
                Failure::Usage(format!("this command knows -o {}, not `{output}`", values.join(", -o ")))
            })?;
            self.output = Some(known);
        }
        Ok(self.namespace())
    }

    pub(crate) fn server(&self) -> &str {
        self.server.as_deref().unwrap_or(DEFAULT_SERVER)
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace.clone().unwrap_or_default()
    }

    pub(crate) fn output(&self) -> O {
        self.output.unwrap_or_default()
    }
}

// === impl Output, Plain ===

impl Shape for Output {
    fn data(self) -> Option<Data> {
        match self {
            Self::Json => Some(Data::Json),
            Self::Yaml => Some(Data::Yaml),
            Self::Table | Self::Wide | Self::Name => None,
        }
    }
}

impl Shape for Plain {
    fn data(self) -> Option<Data> {
        match self {
            Self::Json => Some(Data::Json),
            Self::Yaml => Some(Data::Yaml),
            Self::Table => None,
        }
    }
}
