//! One setting, and everything that is known of it: written once, in the table of `Config`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction};
use ipnet::IpNet;
use roundsman_protocol::time;
use roundsman_store::StoreUrl;

use super::values::LogFormat;

/// One setting of a configuration `C`. Flag, environment variable, key in the file, help and README are made from it.
#[derive(Debug)]
pub(super) struct Setting<C> {
    /// The flag without its dashes, and the key in a file.
    pub(super) name: String,
    /// The environment variable.
    pub(super) env: String,
    /// What stands behind the flag in the help: `TIME`, `BYTES`.
    pub(super) unit: &'static str,
    /// What it is for, in Markdown.
    pub(super) help: &'static str,
    /// What its default means, where the value does not tell.
    pub(super) unset: Option<&'static str>,
    pub(super) arity: Arity,
    /// Takes it over from text, or says which rule that breaks.
    pub(super) read: fn(&mut C, &str) -> Result<(), String>,
    /// Its value as it stands in a file; none when it is not set.
    pub(super) show: fn(&C) -> Option<String>,
}

/// How many values it takes on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arity {
    /// One.
    One,
    /// One, or none, which means `true`.
    Switch,
    /// As many as there are, with commas or blanks between them.
    Many,
}

/// What a setting can be.
pub(super) trait Value {
    /// How many values it takes on the command line.
    const ARITY: Arity = Arity::One;

    /// It as it stands in a file, if it is set.
    fn shown(&self) -> Option<String>;
}

/// Makes the configuration and the table of its settings out of one list.
macro_rules! settings {
    ($(
        $field:ident: $type:ty = $default:expr, $unit:literal, $read:expr,
        $help:literal $(, or $unset:literal)?;
    )+) => {
        /// Everything that an operator can set. The defaults are those of the command line.
        #[derive(Clone, Debug)]
        pub struct Config {
            $(#[doc = $help] pub $field: $type,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// All settings, in the order in which they are shown.
        static SETTINGS: LazyLock<Vec<Setting<Config>>> = LazyLock::new(|| vec![$(Setting {
            name: stringify!($field).replace('_', "-"),
            env: format!("ROUNDSMAN_{}", stringify!($field).to_uppercase()),
            unit: $unit,
            help: $help,
            unset: [$($unset)?].into_iter().next(),
            arity: <$type as Value>::ARITY,
            read: |config, text| {
                config.$field = $read(text)?;
                Ok(())
            },
            show: |config| config.$field.shown(),
        }),+]);
    };
}
pub(super) use settings;

// === impl Setting ===

impl<C: Default> Setting<C> {
    /// The flag. Absent, it has no value, so that it does not hide the file's: its default is shown by hand.
    pub(super) fn arg(&'static self) -> Arg {
        let help = self.help.replace('`', "");
        let default = self.default().map(|default| format!(" [default: {default}]")).unwrap_or_default();
        let arg = Arg::new(&*self.name).long(&*self.name).env(&*self.env).value_name(self.unit);
        let arg = arg.help(help + &default);
        match self.arity {
            Arity::One => arg,
            Arity::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Arity::Many => arg.num_args(1..).value_delimiter(',').action(ArgAction::Append),
        }
    }

    /// What it is when nobody sets it.
    pub(super) fn default(&self) -> Option<String> {
        let value = || (self.show)(&C::default());
        let text = self.unset.map(str::to_owned).or_else(value)?;
        Some(text.trim_matches('"').to_owned())
    }
}

// === impl Value ===

impl Value for SocketAddr {
    fn shown(&self) -> Option<String> {
        quoted(self)
    }
}

impl Value for StoreUrl {
    fn shown(&self) -> Option<String> {
        quoted(self)
    }
}

impl Value for Duration {
    fn shown(&self) -> Option<String> {
        quoted(&time::display(*self))
    }
}

impl Value for LogFormat {
    fn shown(&self) -> Option<String> {
        quoted(self)
    }
}

impl Value for Option<PathBuf> {
    fn shown(&self) -> Option<String> {
        quoted(&self.as_ref()?.display())
    }
}

impl Value for Vec<IpNet> {
    const ARITY: Arity = Arity::Many;

    fn shown(&self) -> Option<String> {
        let texts: Vec<String> = self.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| format!("{texts:?}"))
    }
}

impl Value for bool {
    const ARITY: Arity = Arity::Switch;

    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u32 {
    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for usize {
    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for Option<u64> {
    fn shown(&self) -> Option<String> {
        self.map(|number| number.to_string())
    }
}

/// A text, quoted as in JSON: TOML understands all of its escapes.
fn quoted(value: &impl ToString) -> Option<String> {
    serde_json::to_string(&value.to_string()).ok()
}
