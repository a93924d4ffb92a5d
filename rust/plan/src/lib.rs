//! From a problem to the first kernel row that takes it: tables, memo, filter and explanation.
#![forbid(unsafe_code)]

mod filter;

pub use filter::{Filter, set_filter};

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use striate_core::{Device, Kernel, Problem, Program, Why};

/// The chosen row for one problem, compiled.
pub struct Plan {
    /// The problem.
    pub problem: Problem,
    /// The chosen row.
    pub row: &'static Kernel,
    /// Its program for this problem.
    pub program: Box<dyn Program>,
    /// Rows that were asked first, and why each refused.
    pub refusals: Vec<(&'static str, Why)>,
}

/// No row took the problem, which happens only when rows are forbidden by name or the device has none.
#[derive(Debug)]
pub struct Refused(Box<(Problem, Vec<(&'static str, Why)>)>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (problem, refusals) = &*self.0;
        write!(f, "no kernel row takes `{problem}`")?;
        refusals.iter().try_for_each(|(row, why)| write!(f, "; {row}: {why}"))
    }
}

impl std::error::Error for Refused {}

/// The rows of a device in order of preference.
pub fn table(device: Device) -> &'static [&'static Kernel] {
    static CPU: LazyLock<Vec<&'static Kernel>> = LazyLock::new(|| {
        let mut rows: Vec<&'static Kernel> = striate_cpu::rows().iter().collect();
        rows.push(&striate_reference::conv::ROW);
        rows
    });
    match device {
        Device::Cpu => &CPU,
        Device::Cuda => &[],
    }
}

/// Plans kept at most; a program is a few kilobytes.
const KEPT: usize = 1024;

static MEMO: LazyLock<Mutex<HashMap<Problem, Arc<Plan>>>> = LazyLock::new(Mutex::default);

/// The plan for a problem, from the memo if it was asked before.
pub fn plan(problem: &Problem) -> Result<Arc<Plan>, Refused> {
    if let Some(known) = MEMO.lock().unwrap_or_else(PoisonError::into_inner).get(problem) {
        return Ok(known.clone());
    }
    let made = Arc::new(choose(problem)?);
    if filter::logging() {
        eprintln!("striate: {problem} -> {}", made.row.name);
    }
    let mut memo = MEMO.lock().unwrap_or_else(PoisonError::into_inner);
    if memo.len() >= KEPT {
        memo.clear();
    }
    memo.insert(*problem, made.clone());
    Ok(made)
}

/// Forgets every plan.
pub fn forget() {
    MEMO.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn choose(problem: &Problem) -> Result<Plan, Refused> {
    let filter = filter::current();
    let mut refusals = Vec::new();
    for row in table(problem.device) {
        let verdict = if !filter.allows(row.name) {
            Err(format!("forbidden by the filter {:?}", filter.text()))
        } else if !(row.available)() {
            Err(format!("this processor lacks {}", row.isa))
        } else {
            (row.supports)(problem)
        };
        match verdict {
            Ok(()) => {
                return Ok(Plan { problem: *problem, row, program: (row.compile)(problem), refusals });
            }
            Err(why) => refusals.push((row.name, why)),
        }
    }
    Err(Refused(Box::new((*problem, refusals))))
}
