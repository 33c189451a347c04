//! `--fail-if`: conditions under which a run counts as failed, such as `p99>3ms,lost>0`. Knows the names of figures, not
//! how they come about.

use crate::{
    figures::{self, Name, Need, Unit},
    units,
};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Which figure.
    pub figure: Name,
    comparison: Comparison,
    limit: f64,
    text: String,
}

/// Several, of which none may come true.
pub type Thresholds = Vec<Threshold>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// Comparisons as they are spelt, the longer ones first.
const COMPARISONS: [(&str, Comparison); 4] =
    [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below)];

impl Threshold {
    /// Reads conditions separated by commas.
    ///
    /// # Errors
    /// One names no known figure, has no comparison, or a limit in another unit.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(|condition| Self::parse(condition.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let split = COMPARISONS.iter().find_map(|(spelt, comparison)| Some((text.split_once(spelt)?, *comparison)));
        let Some(((name, limit), comparison)) = split else {
            return Err(format!("`{text}` compares nothing; write a figure, one of > >= < <=, and a limit: p99>3ms"));
        };
        let (name, limit) = (name.trim(), limit.trim());
        let Some(figure) = figures::find(name) else {
            let known = figures::NAMES.map(|known| known.name).join(", ");
            return Err(format!("`{name}` is no figure of a run; the figures are {known}"));
        };
        let limit = match figure.unit {
            Unit::Time => units::nanos(limit),
            Unit::Size => units::bytes(limit),
            Unit::Count | Unit::Rate => plain(limit),
        };
        let limit = limit.map_err(|error| format!("the limit of `{text}`: {error}"))?;
        Ok(Self { figure, comparison, limit, text: text.to_owned() })
    }

    /// Whether `value` breaks it. A figure that could not be measured does.
    pub fn is_broken_by(&self, value: Option<f64>) -> bool {
        value.is_none_or(|value| match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
        })
    }

    /// What the run lacks to measure it, if anything.
    pub fn lacks(&self, pid: bool, hold: bool, floor: bool) -> Option<String> {
        let missing = match self.figure.need {
            Need::Pid if !pid => "--pid",
            Need::Hold if !pid || !hold => "--pid and --hold",
            Need::Floor if !pid || !floor => "--pid and --floor",
            _ => return None,
        };
        Some(format!("`{}` cannot be measured without {missing}", self.text))
    }

    /// For people: the condition and the value that broke it.
    pub fn show(&self, value: Option<f64>) -> String {
        let value = value.map_or_else(|| "not measured".into(), |value| self.figure.show(value));
        format!("{} (it is {value})", self.text)
    }
}

fn plain(text: &str) -> Result<f64, String> {
    match units::split(text)? {
        (number, "" | "x" | "/s") => Ok(number),
        (_, unit) => Err(format!("`{text}` is to be a plain number, without `{unit}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_held() {
        let all =
            Threshold::parse_all("p99>3ms, lost>0,rss_per_connection >= 3KB,delivery_rate<2500000").expect("valid");
        let broken = |index: usize, value: f64| all[index].is_broken_by(Some(value));
        assert!(broken(0, 3_000_001.0) && !broken(0, 3e6));
        assert!(broken(1, 1.0) && !broken(1, 0.0));
        assert!(broken(2, 3072.0) && !broken(2, 3071.0));
        assert!(broken(3, 2_499_999.0) && !broken(3, 2_500_000.0));
        assert!(all[0].is_broken_by(None), "what was not measured does not pass");
    }

    #[test]
    fn faults_name_what_is_wrong() {
        let fault = |text| Threshold::parse_all(text).expect_err("a fault");
        assert!(fault("p99").contains("compares nothing"));
        assert!(fault("p98>3ms").contains("`p98` is no figure of a run; the figures are connected"));
        assert!(fault("p99>3").contains("needs a unit"));
        assert!(fault("lost>3ms").contains("plain number"));
        assert!(fault("lost>0,").contains("compares nothing"));
    }

    #[test]
    fn what_a_condition_needs_is_asked_for() {
        let all = Threshold::parse_all("cpu_per_delivery>84us,cpu_per_idle_second>2us,times_floor>1.3x,p50>1ms");
        let lacks: Vec<_> = all.expect("valid").iter().map(|one| one.lacks(true, false, false).is_some()).collect();
        assert_eq!(lacks, [false, true, true, false]);
    }
}
