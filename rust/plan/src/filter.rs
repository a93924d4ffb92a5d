//! Which rows may be chosen: a regular expression from `STRIATE_KERNELS` or set by a program.

use regex_lite::Regex;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use striate_core::Why;

/// Rows whose name matches are allowed; with a leading `-`, rows whose name matches are forbidden.
pub struct Filter {
    text: String,
    pattern: Option<Regex>,
    forbid: bool,
}

impl Filter {
    /// A filter from its text; empty allows every row.
    pub fn new(text: &str) -> Result<Filter, String> {
        let (forbid, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let pattern = if body.is_empty() {
            None
        } else {
            Some(
                Regex::new(body)
                    .map_err(|error| format!("kernel filter {text:?} is no regular expression: {error}"))?,
            )
        };
        Ok(Filter { text: text.to_owned(), pattern, forbid })
    }

    /// Whether a row of this name may be chosen.
    pub fn allows(&self, name: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(name) != self.forbid)
    }

    /// Whether a row may run here, or why not.
    pub fn admits(&self, name: &str, available: fn() -> bool, isa: &str) -> Result<(), Why> {
        if !self.allows(name) {
            Err(format!("forbidden by the filter {:?}", self.text))
        } else if !available() {
            Err(format!("this processor lacks {isa}"))
        } else {
            Ok(())
        }
    }
}

fn environment() -> Arc<Filter> {
    let text = std::env::var("STRIATE_KERNELS").unwrap_or_default();
    let filter = Filter::new(&text).or_else(|error| {
        eprintln!("striate: STRIATE_KERNELS is ignored: {error}");
        Filter::new("")
    });
    Arc::new(filter.expect("the empty filter is valid"))
}

static FILTER: LazyLock<Mutex<Arc<Filter>>> = LazyLock::new(|| Mutex::new(environment()));
static LOGGING: LazyLock<bool> =
    LazyLock::new(|| std::env::var("STRIATE_LOG").is_ok_and(|topics| topics.contains("plan")));

pub(crate) fn current() -> Arc<Filter> {
    FILTER.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) fn none() -> Arc<Filter> {
    Arc::new(Filter { text: String::new(), pattern: None, forbid: false })
}

pub(crate) fn logging() -> bool {
    *LOGGING
}

/// Replaces the filter; `None` goes back to the environment's. Plans made under the old one are forgotten.
pub fn set_filter(text: Option<&str>) -> Result<(), String> {
    let filter = text.map_or_else(|| Ok(environment()), |text| Filter::new(text).map(Arc::new))?;
    *FILTER.lock().unwrap_or_else(PoisonError::into_inner) = filter;
    crate::forget();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn filters_allow_or_forbid_by_name() {
        assert!(Filter::new("").unwrap().allows("anything"));
        assert!(Filter::new("avx2|reference").unwrap().allows("depthwise.width.avx2"));
        assert!(!Filter::new("avx2|reference").unwrap().allows("depthwise.width.avx512"));
        assert!(!Filter::new("-avx512").unwrap().allows("depthwise.width.avx512"));
        assert!(Filter::new("-avx512").unwrap().allows("reference"));
        assert!(Filter::new("(").is_err());
    }
}
