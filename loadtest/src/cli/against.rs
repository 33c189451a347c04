//! Another server for the same load, in one text: keys and values, separated by commas.

use std::path::PathBuf;

use super::{
    Trial,
    parse::{api, secret, target},
};
use crate::{
    plan::{Api, Plan},
    process::Source,
    scenario::{Course, Pauses},
};

/// The server, as it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Against {
    name: Option<String>,
    urls: Vec<String>,
    sources: Vec<Source>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    api: Option<String>,
    api_key: Option<String>,
    api_key_file: Option<PathBuf>,
}

impl Against {
    /// Reads `name=…,url=…,pid=…`; `url`, `pid` and `metrics` may come several times.
    ///
    /// # Errors
    /// A key is unknown, or there is no URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut one = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is to be a key, = and a value"))?;
            let own = || Some(value.to_owned());
            match key.trim() {
                "name" => one.name = own(),
                "url" => one.urls.extend(own()),
                "pid" => one.sources.push(Source::Pid(value.parse().map_err(|_| format!("`{part}`: no process id"))?)),
                "metrics" => one.sources.push(Source::Metrics(value.to_owned())),
                "secret" => one.secret = own(),
                "secret-file" => one.secret_file = Some(value.into()),
                "api" => one.api = own(),
                "api-key" => one.api_key = own(),
                "api-key-file" => one.api_key_file = Some(value.into()),
                other => {
                    return Err(format!(
                        "`{other}` is none of name, url, pid, metrics, secret, secret-file, api, api-key, api-key-file"
                    ));
                }
            }
        }
        if one.urls.is_empty() { Err("a url= is missing".into()) } else { Ok(one) }
    }

    /// The load of `plan` on this server. Its secret and key are those of the plan unless it has its own.
    ///
    /// # Errors
    /// A URL or file of it cannot be used.
    pub(super) fn trial(&self, plan: &Plan, pauses: Pauses) -> Result<Trial, String> {
        let fault = |fault| format!("--against: {fault}");
        let name = self.name.clone().unwrap_or_else(|| self.urls[0].clone());
        let own = secret(self.secret.as_deref(), self.secret_file.as_deref(), "secret-file").map_err(fault)?;
        let key = secret(self.api_key.as_deref(), self.api_key_file.as_deref(), "api-key-file").map_err(fault)?;
        let inherited = plan.api.as_ref().map(|api| api.key.clone()).unwrap_or_default();
        let at = self.api.as_deref().map(api).transpose().map_err(fault)?;
        if plan.api.is_some() && at.is_none() {
            return Err(format!("--against: {name} needs api= to be published through, as the first server is"));
        }
        let api = at.filter(|_| plan.api.is_some()).map(|target| Api { target, key: key.unwrap_or(inherited) });
        let targets = self.urls.iter().map(|url| target(url)).collect::<Result<_, _>>().map_err(fault)?;
        let secret = own.or_else(|| plan.secret.clone());
        let plan = Plan { targets, secret, api, ..plan.clone() };
        Ok(Trial { plan, course: Course { name, pauses, sources: self.sources.clone(), at: Vec::new() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_in_one_text() {
        let one = Against::parse("name=other,url=ws://a/,url=ws://b/,pid=7,api=http://a/api/publish").expect("valid");
        assert_eq!((one.name.as_deref(), one.urls.len(), one.sources.len()), (Some("other"), 2, 1));
        assert!(Against::parse("name=other").expect_err("no server").contains("url="));
        assert!(Against::parse("url=ws://a/,pdi=7").expect_err("no key").contains("`pdi` is none of name, url, pid"));
    }
}
