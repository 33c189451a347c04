//! The nearest known name to one that is not known. Knows spelling, not settings.

/// Says which of the known names is nearest: as a question where it is near, as a plain statement where it is not.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>, separator: char) -> String {
    let scored = known.into_iter().map(|name| (likeness(unknown, name, separator), name));
    match scored.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((score, name)) if score >= 0.7 => format!("did you mean {name}?"),
        Some((_, name)) => format!("the nearest known name is {name}; `roomcast --help` lists all"),
        None => "no name is known here".to_owned(),
    }
}

/// How alike two names are, from 0 to 1: the whole names, or, a little less, only what follows the last separator, so
/// that a setting written in the wrong section is found as well.
fn likeness(unknown: &str, name: &str, separator: char) -> f64 {
    let (unknown, name) = (unknown.to_lowercase(), name.to_lowercase());
    let last = |text: &str| text.rsplit(separator).next().unwrap_or_default().to_owned();
    let whole = strsim::normalized_damerau_levenshtein(&unknown, &name);
    let end = strsim::normalized_damerau_levenshtein(&last(&unknown), &last(&name));
    let whole_to_end = strsim::normalized_damerau_levenshtein(&unknown, &last(&name));
    // Where the ends are equal in several sections, the likeness of the whole decides.
    whole.max(end.max(whole_to_end) * 0.9 + whole * 0.05)
}
