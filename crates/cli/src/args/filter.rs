//! Which instances a command is about: `--tag`, `--zone`, `--version`, `--meta`, `--status`.

use clap::{Args, ValueEnum};
use roundsman::{Error, Instance, InstanceStatus, Query, Scope, ServiceName};

use super::values::key_value;
use crate::exit::Failure;

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Only instances")]
pub(crate) struct Filter {
    /// With this tag; with several: with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// With this metadata entry; with several: with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// In this zone
    #[arg(long)]
    zone: Option<String>,
    /// Of this version
    #[arg(long)]
    version: Option<String>,
    /// In this status, or one of several with commas between them
    #[arg(long = "status", value_enum, value_name = "STATUS", value_delimiter = ',')]
    statuses: Vec<Status>,
}

/// The statuses, as they are typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Status {
    Passing,
    Suspect,
    Starting,
    Draining,
    Evicted,
}

// === impl Filter ===

impl Filter {
    /// What a server is asked. The status is left to [`Filter::admits`], but for what it tells of the scope.
    pub(crate) fn query(&self, name: Option<&ServiceName>, scope: Scope) -> Result<Query, Failure> {
        let scope = if self.statuses.is_empty() { scope } else { Scope::All };
        let query = Query {
            services: name.cloned().into_iter().collect(),
            scope,
            tags: self.tags.iter().map(|tag| tag.as_str().into()).collect(),
            meta: self.meta.iter().cloned().collect(),
            zone: self.zone.as_deref().map(Box::from),
            version: self.version.as_deref().map(Box::from),
            ..Query::default()
        };
        query.validate().map_err(Error::from)?;
        Ok(query)
    }

    /// Whether the status is one of those asked for.
    pub(crate) fn admits(&self, status: InstanceStatus) -> bool {
        self.statuses.is_empty() || self.statuses.iter().any(|wanted| wanted.means() == status)
    }

    /// Whether one of these is.
    pub(crate) fn admits_any(&self, statuses: impl IntoIterator<Item = Option<InstanceStatus>>) -> bool {
        self.statuses.is_empty() || statuses.into_iter().flatten().any(|status| self.admits(status))
    }

    /// Whether it is one of the statuses asked for, when the server has looked at the rest.
    pub(crate) fn passes(&self, instance: &Instance) -> bool {
        self.admits(instance.status)
    }

    /// Whether it leaves anything out.
    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty()
            && self.meta.is_empty()
            && self.zone.is_none()
            && self.version.is_none()
            && self.statuses.is_empty()
    }
}

// === impl Status ===

impl Status {
    fn means(self) -> InstanceStatus {
        match self {
            Self::Passing => InstanceStatus::Passing,
            Self::Suspect => InstanceStatus::Suspect,
            Self::Starting => InstanceStatus::Starting,
            Self::Draining => InstanceStatus::Draining,
            Self::Evicted => InstanceStatus::Evicted,
        }
    }
}
