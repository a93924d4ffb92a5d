//! From a problem to the first kernel row that takes it: tables, memo, filter and explanation.
#![forbid(unsafe_code)]

mod filter;
mod operations;

pub use filter::{Filter, set_filter};
pub use operations::{Chosen, admits, device_operation, device_operations, operation, operations};

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use striate_core::{Kernel, Problem, Program, Recipe, Why};
pub use striate_gpu::rows as device_table;

/// The chosen row for one problem, compiled to a program, or on a device to a recipe.
pub struct Plan<C: 'static = Box<dyn Program>> {
    /// The problem.
    pub problem: Problem,
    /// The chosen row.
    pub row: &'static Kernel<C>,
    /// What it compiled this problem to.
    pub program: C,
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

/// The rows of the processor in order of preference.
pub fn table() -> &'static [&'static Kernel] {
    static CPU: LazyLock<Vec<&'static Kernel>> = LazyLock::new(|| {
        let mut rows: Vec<&'static Kernel> = striate_cpu::rows().iter().collect();
        rows.push(&striate_reference::conv::ROW);
        rows
    });
    &CPU
}

/// Plans kept at most; a program is a few kilobytes.
const KEPT: usize = 1024;

type Memo<C> = LazyLock<Mutex<HashMap<Problem, Arc<Plan<C>>>>>;

static MEMO: Memo<Box<dyn Program>> = LazyLock::new(Mutex::default);
static DEVICE_MEMO: Memo<Recipe> = LazyLock::new(Mutex::default);

/// Changes whenever plans are forgotten.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// A number that changes whenever plans are forgotten, for those who remember some themselves.
pub fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// The plan for a problem, from a memo if it was asked before.
pub fn plan(problem: &Problem) -> Result<Arc<Plan>, Refused> {
    remembered(&MEMO, problem, || choose(problem, table().iter().copied(), &filter::current()))
}

/// The plan for a problem on a CUDA device: a recipe, which needs no device to be made.
pub fn device_plan(problem: &Problem) -> Result<Arc<Plan<Recipe>>, Refused> {
    remembered(&DEVICE_MEMO, problem, || {
        let filter = filter::current();
        let rows = striate_gpu::rows();
        // A filter that leaves the device no row at all was meant for others.
        let none = filter::none();
        let meant = rows.iter().any(|row| filter.allows(row.name));
        choose(problem, rows.iter(), if meant { &filter } else { &none })
    })
}

fn remembered<C: 'static>(
    memo: &Memo<C>,
    problem: &Problem,
    choose: impl FnOnce() -> Result<Plan<C>, Refused>,
) -> Result<Arc<Plan<C>>, Refused> {
    if let Some(known) = memo.lock().unwrap_or_else(PoisonError::into_inner).get(problem) {
        return Ok(known.clone());
    }
    let made = Arc::new(choose()?);
    if filter::logging() {
        eprintln!("striate: {problem} -> {}", made.row.name);
    }
    let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
    if memo.len() >= KEPT {
        memo.clear();
    }
    memo.insert(*problem, made.clone());
    Ok(made)
}

/// Forgets every plan and what kernels keep between calls.
pub fn forget() {
    striate_cpu::forget();
    EPOCH.fetch_add(1, Ordering::AcqRel);
    MEMO.lock().unwrap_or_else(PoisonError::into_inner).clear();
    DEVICE_MEMO.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn choose<C: 'static>(
    problem: &Problem,
    rows: impl Iterator<Item = &'static Kernel<C>>,
    filter: &Filter,
) -> Result<Plan<C>, Refused> {
    let mut refusals = Vec::new();
    for row in rows {
        match filter.admits(row.name, row.available, row.isa).and_then(|()| (row.supports)(problem)) {
            Ok(()) => {
                return Ok(Plan { problem: *problem, row, program: (row.compile)(problem), refusals });
            }
            Err(why) => refusals.push((row.name, why)),
        }
    }
    Err(Refused(Box::new((*problem, refusals))))
}
