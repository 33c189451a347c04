//! The processes of a server as one account. They have to be there when a run begins; one that ends meanwhile keeps what
//! it had used, because a run may end it on purpose.

use anyhow::{Context, Result};

use super::{Usage, metrics};

/// Where the usage of a process is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/proc`, by process id.
    Pid(u32),
    /// The process's own metrics in Prometheus' format, at this URL.
    Metrics(String),
}

/// Processes accounted together.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    all: Vec<Account>,
}

#[derive(Clone, Debug)]
struct Account {
    source: Source,
    /// As it was seen last.
    last: Usage,
    gone: bool,
}

impl Accounts {
    /// Of these processes.
    ///
    /// # Errors
    /// One is not there.
    pub fn open(sources: &[Source]) -> Result<Self> {
        let open = |source: &Source| {
            let last = source.read()?;
            Ok(Account { source: source.clone(), last, gone: false })
        };
        Ok(Self { all: sources.iter().map(open).collect::<Result<_>>()? })
    }

    /// Whether nothing is accounted.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What all have used so far, measured as well as can be.
    pub fn usage(&mut self) -> Usage {
        self.sum(Source::read)
    }

    /// The same, cheaply.
    pub fn glance(&mut self) -> Usage {
        self.sum(Source::glance)
    }

    fn sum(&mut self, read: fn(&Source) -> Result<Usage>) -> Usage {
        for account in self.all.iter_mut().filter(|account| !account.gone) {
            if let Ok(usage) = read(&account.source) {
                account.last = usage;
            } else {
                (account.gone, account.last.rss) = (true, 0);
            }
        }
        self.all.iter().fold(Usage::default(), |sum, account| sum + account.last)
    }

    /// Those that are there no more, for people.
    pub fn gone(&self) -> Vec<String> {
        self.all.iter().filter(|account| account.gone).map(|account| account.source.name()).collect()
    }
}

impl Source {
    fn read(&self) -> Result<Usage> {
        match self {
            Self::Pid(pid) => Usage::of(&[*pid]),
            Self::Metrics(url) => metrics::usage(url).with_context(|| format!("cannot account {url}")),
        }
    }

    fn glance(&self) -> Result<Usage> {
        match self {
            Self::Pid(pid) => Usage::roughly(*pid),
            Self::Metrics(_) => self.read(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Pid(pid) => format!("process {pid}"),
            Self::Metrics(url) => url.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_ends_keeps_what_it_used() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("it starts");
        let own = Source::Pid(std::process::id());
        let mut accounts = Accounts::open(&[own, Source::Pid(child.id())]).expect("both run");
        let before = accounts.usage();
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(accounts.usage().cpu >= before.cpu);
        assert_eq!(accounts.gone(), [format!("process {}", child.id())]);
        assert!(Accounts::open(&[Source::Pid(child.id())]).is_err(), "a run does not begin without it");
    }
}
