//! Plans, and what a fork must not tear apart.
//!
//! A forked child has one thread, and whatever lock another thread held stays locked in it for ever. So planning,
//! which takes locks of its own, happens under one lock that a fork waits for and then frees on both sides. That
//! also tells a child that it is one.

use crate::listen::{Heard, tell};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use striate_core::{Problem, Recipe};
use striate_plan::{Plan, Refused};

static PLANNING: Mutex<()> = Mutex::new(());
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The lock that planning holds, and a fork waits for.
pub fn alone() -> MutexGuard<'static, ()> {
    watch();
    PLANNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plan for a problem.
pub fn plan(problem: &Problem) -> Result<Arc<Plan>, Refused> {
    let plan = {
        let _alone = alone();
        striate_plan::plan(problem)?
    };
    tell(|| Heard::on_cpu(&plan));
    Ok(plan)
}

/// The plan for a problem on a CUDA device.
pub fn device_plan(problem: &Problem) -> Result<Arc<Plan<Recipe>>, Refused> {
    let plan = {
        let _alone = alone();
        striate_plan::device_plan(problem)?
    };
    tell(|| Heard::on_device(&plan));
    Ok(plan)
}

/// Replaces the filter of kernel rows, see [`striate_plan::set_filter`].
pub fn set_filter(text: Option<&str>) -> Result<(), String> {
    let _alone = alone();
    striate_plan::set_filter(text)
}

/// How many forks lie between this process and the one that loaded the library.
pub fn generation() -> u32 {
    watch();
    GENERATION.load(Ordering::Relaxed)
}

#[cfg(unix)]
fn watch() {
    use std::cell::RefCell;
    use std::sync::Once;

    thread_local! {
        static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
    }
    extern "C" fn before() {
        let guard = PLANNING.lock().unwrap_or_else(PoisonError::into_inner);
        HELD.with(|held| *held.borrow_mut() = Some(guard));
    }
    extern "C" fn after() {
        HELD.with(|held| drop(held.borrow_mut().take()));
    }
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        after();
    }
    static WATCHING: Once = Once::new();
    // SAFETY: the handlers are functions of this library, which is never unloaded. They run in the thread that
    // forks, which is not planning, so taking the lock cannot wait for itself.
    WATCHING.call_once(|| assert_eq!(unsafe { at_fork(before, after, in_child) }, 0, "no memory to watch forks"));
}

/// # Safety
/// The functions must stay loaded.
#[cfg(all(unix, target_env = "gnu"))]
unsafe fn at_fork(before: extern "C" fn(), after: extern "C" fn(), in_child: extern "C" fn()) -> libc::c_int {
    // `pthread_atfork` itself lies in a static part of glibc that not every linker brings along.
    unsafe extern "C" {
        fn __register_atfork(
            before: extern "C" fn(),
            after: extern "C" fn(),
            in_child: extern "C" fn(),
            library: *mut libc::c_void,
        ) -> libc::c_int;
    }
    // SAFETY: null stands for a library that stays.
    unsafe { __register_atfork(before, after, in_child, std::ptr::null_mut()) }
}

/// # Safety
/// The functions must stay loaded.
#[cfg(all(unix, not(target_env = "gnu")))]
unsafe fn at_fork(before: extern "C" fn(), after: extern "C" fn(), in_child: extern "C" fn()) -> libc::c_int {
    // SAFETY: plain functions.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) }
}

#[cfg(not(unix))]
fn watch() {}
